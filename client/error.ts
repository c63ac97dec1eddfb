/** What went wrong, by what the caller can do about it. */
export type FeedErrorCode =
  /** The feed is closed for good; the message says why. */
  | "refused"
  /** There is no connection, and the message says why as far as it is known; it is tried again. */
  | "connection"
  /** getToken failed, gave no token or is slow; it is called again once it has answered. */
  | "token"
  /** A channel cannot be had with this token, or not in addition to the others. */
  | "channels"
  /** The resync hook failed, or its cursor cannot be continued; it will be called again. */
  | "resync"
  /** The position could not be stored or read; the feed goes on without. */
  | "storage"
  /** A listener threw. */
  | "listener"
  /** The relay sent a frame that cannot be read; it is skipped. */
  | "frame"
  /** The relay refused a request, such as one for a channel that is not allowed. */
  | "relay"

export class FeedError extends Error {
  override name = "FeedError"
  readonly code: FeedErrorCode

  constructor(code: FeedErrorCode, message: string, cause?: unknown) {
    super(message, { cause })
    this.code = code
  }
}

/** Never fails, whatever was thrown. */
export function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? error.message : String(error)
  } catch {
    return "something that cannot be shown"
  }
}
