/** A clock that stands until a test lets time pass, so that no test of an order of events waits or hurries. */

import { setImmediate as yieldLoop } from "node:timers/promises"
import type { Clock } from "../../relay/lib/clock.ts"

export interface TestClock extends Clock {
  /** Lets time pass; everybody who sleeps wakes in turn, and runs on until it waits again. */
  pass(ms: number): Promise<void>
  /** How much longer each sleeps that sleeps now. */
  sleeping(): number[]
}

/** Resolves when everything that needs neither time nor the network has run on until it waits. */
export const settled = (): Promise<void> => yieldLoop()

export function createTestClock(): TestClock {
  let now = 0
  const sleepers = new Set<{ until: number; wake: () => void }>()
  const first = () => [...sleepers].sort((a, b) => a.until - b.until)[0]
  return {
    now: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve()
        const wake = () => {
          sleepers.delete(sleeper)
          signal.removeEventListener("abort", wake)
          resolve()
        }
        const sleeper = { until: now + ms, wake }
        sleepers.add(sleeper)
        signal.addEventListener("abort", wake)
      }),
    async pass(ms) {
      const end = now + ms
      await settled()
      for (let next = first(); next !== undefined && next.until <= end; next = first()) {
        now = next.until
        next.wake()
        await settled()
      }
      now = end
    },
    sleeping: () => [...sleepers].map(({ until }) => until - now).sort((a, b) => a - b),
  }
}
