/**
 * The delay before an attempt, in milliseconds: doubling from 100 ms to 10 s, with jitter over the upper half, so that
 * relays do not come back in step.
 */
export function backoff(attempt: number): number {
  const ceiling = Math.min(10_000, 100 * 2 ** Math.min(attempt, 10))
  return ceiling / 2 + Math.random() * (ceiling / 2)
}
