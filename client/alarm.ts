/** The longest delay that setTimeout takes; with a longer one it fires at once. */
const LONGEST_MS = 2 ** 31 - 1

/** A timer of any length. @returns what cancels it. */
export function setAlarm(ms: number, ring: () => void): () => void {
  let timer: ReturnType<typeof setTimeout>
  const wait = (left: number) => {
    const step = Math.min(left, LONGEST_MS)
    timer = setTimeout(() => (left > step ? wait(left - step) : ring()), step)
  }
  wait(ms)
  return () => clearTimeout(timer)
}
