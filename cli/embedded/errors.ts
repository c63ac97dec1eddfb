/** Errors of the embedded database whose message tells a person what to do, and the codes of the system's own errors. */

/** A server or initdb did not do its work; the message holds its last words. */
export class ClusterError extends Error {
  override name = "ClusterError"
}

/** The embedded database cannot be used; the message says what to do. */
export class EmbeddedError extends Error {
  override name = "EmbeddedError"
}

/** Whether it failed because there is no room on a disk, which is no mistake of a setting. */
export function isDiskFull(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  return (
    codeOf(error) === "ENOSPC" || /No space left on device/.test(error.message) || isDiskFull(error.cause)
  )
}

/** The `code` of a system error. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined
}
