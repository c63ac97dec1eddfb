/** What setTimeout takes at most; anything longer fires at once. */
const LONGEST_MS = 2 ** 31 - 1

/** A timer that may be as long as it likes. @returns what ends it. */
export function setAlarm(ms: number, act: () => void): () => void {
  let timer: ReturnType<typeof setTimeout>
  const wait = (left: number) => {
    const step = Math.min(left, LONGEST_MS)
    timer = setTimeout(() => (left > step ? wait(left - step) : act()), step)
  }
  wait(ms)
  return () => clearTimeout(timer)
}
