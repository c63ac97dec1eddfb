/** What went wrong, by what the caller can do about it. */
export type FeedErrorCode =
  /** The feed is closed for good; the message says why. */
  | "refused"
  /** getToken failed; it is asked again. */
  | "token"
  /** The resync hook failed, or its cursor cannot be continued; it is called again. */
  | "resync"
  /** The place could not be kept or read; the feed goes on without. */
  | "storage"
  /** A listener threw. */
  | "listener"
  /** The relay sent what cannot be read; the frame is passed over. */
  | "frame"
  /** The relay did not obey, such as for a channel that is not allowed. */
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
