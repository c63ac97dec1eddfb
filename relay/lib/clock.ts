/** The clock: time as it passes, whatever date the machine believes it is. Tests bring one of their own. */

export interface Clock {
  /** Monotonic milliseconds. */
  now(): number
  /** Resolves after so many milliseconds, or as soon as the signal is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

/** This process's. */
export const systemClock: Clock = {
  now: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve()
      function end(): void {
        clearTimeout(timer)
        signal.removeEventListener("abort", end)
        resolve()
      }
      const timer = setTimeout(end, ms)
      signal.addEventListener("abort", end)
    }),
}
