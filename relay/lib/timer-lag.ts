/**
 * Lateness: by how much the turns of a timer come too late. In that time this process did not run, because it was
 * stopped or the machine had none for it. What others sent meanwhile is not read yet, and nobody is blamed for silence.
 */

/** @returns by how much the turn that calls it is late, in milliseconds. */
export function createLateness(intervalMs: number, now = () => performance.now()): () => number {
  let last = now()
  return () => {
    const at = now()
    const late = Math.max(0, at - last - intervalMs)
    last = at
    return late
  }
}
