/** How long to wait. Pure: `chance` is a random number from 0 to 1. */

const FIRST_MS = 500
export const LONGEST_MS = 20_000
/** What every client does at once, such as reconnecting after a restart, is spread over this time. */
const SPREAD_MS = 3_000

/** Before an attempt: full jitter over 500 ms, doubling to 20 s, so that clients do not return in step. */
export const backoff = (attempt: number, chance: number): number =>
  Math.min(LONGEST_MS, FIRST_MS + chance * Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt))

/** Before an attempt that will probably fail, or while nobody looks at the page. */
export const idly = (chance: number): number => LONGEST_MS * (0.5 + 0.5 * chance)

/** Before what every client does for the same reason. */
export const spread = (chance: number): number => SPREAD_MS * chance
