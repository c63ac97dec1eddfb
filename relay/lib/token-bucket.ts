/**
 * Token buckets. One is a single number, the time at which it will be whole again (the generic cell rate algorithm): none
 * has a timer, and one that is whole needs no memory. Times are monotonic milliseconds.
 */

/** As many may come at once as the rate allows in so long. Milliseconds. */
const SPAN_MS = 5_000
/** How many buckets are kept, at the most, before the older half is forgotten. */
const MAX_BUCKETS = 131_072

/** So many a second, in the long run. */
export class Rate {
  readonly #eachMs: number
  readonly #roomMs: number
  /** How long an empty bucket takes to be whole. Milliseconds. */
  readonly spanMs: number

  /** @param perSecond 0: as many as come. */
  constructor(perSecond: number) {
    this.#eachMs = perSecond === 0 ? 0 : 1_000 / perSecond
    // The thousandth is for the rounding of a sum of many.
    this.#roomMs = Math.max(SPAN_MS, this.#eachMs) - this.#eachMs * 0.999
    this.spanMs = this.#roomMs + this.#eachMs
  }

  /** Takes one from the bucket. @returns when it will be whole again; undefined if it is empty. */
  take(wholeAt: number, now: number): number | undefined {
    return this.waitMs(wholeAt, now) > 0 ? undefined : Math.max(wholeAt, now) + this.#eachMs
  }

  /** How long until there is one in the bucket. */
  waitMs(wholeAt: number, now: number): number {
    return Math.max(0, wholeAt - now - this.#roomMs)
  }
}

/**
 * A bucket of the same rate for each key. Those that are whole are forgotten. Of too many at a time the older are forgotten
 * before they are whole, so that memory is bounded whoever comes.
 */
export class TokenBuckets {
  readonly #rate: Rate
  /** Each with the time at which it is whole: those taken from since the last turn, and those of the turn before. */
  #recent = new Map<string, number>()
  #older = new Map<string, number>()
  #turnedAt = 0

  constructor(rate: Rate) {
    this.#rate = rate
  }

  /** Takes one. @returns whether there was one. */
  take(key: string, now: number): boolean {
    const wholeAt = this.#rate.take(this.#wholeAt(key), now)
    if (wholeAt === undefined) return false
    if (now - this.#turnedAt >= this.#rate.spanMs || this.#recent.size >= MAX_BUCKETS / 2) this.#turn(now)
    this.#recent.set(key, wholeAt)
    return true
  }

  /** How long until there is one in the bucket. */
  waitMs(key: string, now: number): number {
    return this.#rate.waitMs(this.#wholeAt(key), now)
  }

  #wholeAt(key: string): number {
    return this.#recent.get(key) ?? this.#older.get(key) ?? 0
  }

  /** What nobody has taken from for a whole span is whole. */
  #turn(now: number): void {
    this.#older = this.#recent
    this.#recent = new Map()
    this.#turnedAt = now
  }
}
