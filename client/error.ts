/** What went wrong, by what the caller can do about it. */
export type FeedErrorCode =
  /** The feed is closed for good; the message says why. */
  | "refused"
  /** getToken failed; it will be called again. */
  | "token"
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

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
