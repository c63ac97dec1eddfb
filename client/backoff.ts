/** How long to wait. Pure: chance comes in as a number from 0 to 1. */

const FIRST_MS = 500
export const LONGEST_MS = 20_000
/** What hits every client at once, such as a restart, is answered over this long. */
const SPREAD_MS = 3_000

/** Before an attempt: full jitter over 500 ms, doubling to 20 s, so that clients do not return in step. */
export const backoff = (attempt: number, chance: number): number =>
  Math.min(LONGEST_MS, FIRST_MS + chance * Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt))

/** Before an attempt that is likely in vain, or that nobody looks at. */
export const idly = (chance: number): number => LONGEST_MS * (0.5 + 0.5 * chance)

/** Before something that every client does for the same reason. */
export const spread = (chance: number): number => SPREAD_MS * chance
