/** A lane's entry. */

/** What one part of a batch has for the lane, as chunks of whole frames. */
export interface LaneEntry {
  /** The batch it belongs to: a connection that began during a batch skips the rest of it. */
  readonly batch: number
  readonly shared: readonly Buffer[]
  /** For users with changes on their own channel: shared and own frames in order. */
  readonly own: ReadonlyMap<string, readonly Buffer[]> | undefined
  readonly bytes: number
}
