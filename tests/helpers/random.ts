/** Repeatable chance: the same seed, the same choices. */

export interface Random {
  /** A whole number from 0 up to, not including. */
  below(limit: number): number
  /** True once in so many. */
  oneIn(chances: number): boolean
}

/** Mulberry32. */
export function random(seed: number): Random {
  let state = seed >>> 0
  const below = (limit: number) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * limit)
  }
  return { below, oneIn: (chances) => below(chances) === 0 }
}

/** COMMITCAST_TEST_SEED repeats a run. */
export const newSeed = (): number => Number(process.env.COMMITCAST_TEST_SEED ?? Date.now() % 1_000_000_007)
