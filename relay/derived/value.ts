/** A derived value: what a derived message has now on one channel. */

export interface DerivedValue {
  readonly type: string
  readonly action: string | null
  readonly channel: string
  /** JSON text. */
  readonly data: string
  /** When it was computed, as RFC 3339. */
  readonly at: string
}

/** All values of one derived message; those that it had before and are missing here are withdrawn. */
export interface DerivedValues {
  /** The derived message's type and channel. */
  readonly name: string
  readonly values: readonly DerivedValue[]
}
