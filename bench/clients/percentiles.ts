/** Percentiles of a sample. */

export interface Percentiles {
  p50: number
  p90: number
  p99: number
  max: number
}

/** @throws Error if there is nothing to take them of */
export function percentilesOf(sample: readonly number[]): Percentiles {
  const sorted = [...sample].sort((a, b) => a - b)
  const at = (share: number): number => {
    const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]
    if (value === undefined) throw new Error("nothing was measured")
    return value
  }
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) }
}
