/**
 * The lag of a timer. While a timer is late this process did not run: it was stopped, or the machine was busy. What
 * others sent meanwhile has not been read yet, so nobody is blamed for silence.
 */

/** @returns by how many milliseconds the tick that calls it is late. */
export function createTimerLag(intervalMs: number, now = () => performance.now()): () => number {
  let last = now()
  return () => {
    const at = now()
    const late = Math.max(0, at - last - intervalMs)
    last = at
    return late
  }
}
