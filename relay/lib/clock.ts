/** The clock: time as it passes, whatever date the machine believes it is. Tests bring one of their own. */

export interface Clock {
  /** Monotonic milliseconds. */
  now(): number
  /** Calls back after so many milliseconds. @returns what cancels it. */
  after(ms: number, callback: () => void): () => void
}

/** This process's. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms)
    return () => clearTimeout(timer)
  },
}

/** Resolves after so many milliseconds, or as soon as the signal is aborted. */
export async function sleep(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) => {
    function end(): void {
      cancel()
      signal.removeEventListener("abort", end)
      resolve()
    }
    const cancel = clock.after(ms, end)
    signal.addEventListener("abort", end)
  })
}
