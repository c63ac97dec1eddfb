/** A clock that stands until a test lets time pass, so that no test of an order of events waits or hurries. */

import { setImmediate as yieldLoop } from "node:timers/promises"
import type { Clock } from "../../relay/lib/clock.ts"

export interface TestClock extends Clock {
  /** Lets time pass. Whoever waited for it goes on in turn, until it waits again. */
  pass(ms: number): Promise<void>
  /** How much longer each waits that waits for time to pass. */
  waits(): number[]
}

/** Resolves when everything that needs neither time nor the network has run on until it waits. */
export const settled = (): Promise<void> => yieldLoop()

export function createTestClock(): TestClock {
  let now = 0
  const timers = new Set<{ at: number; callback: () => void }>()
  const first = () => [...timers].sort((a, b) => a.at - b.at)[0]
  return {
    now: () => now,
    after(ms, callback) {
      const timer = { at: now + ms, callback }
      timers.add(timer)
      return () => timers.delete(timer)
    },
    async pass(ms) {
      const end = now + ms
      await settled()
      for (let next = first(); next !== undefined && next.at <= end; next = first()) {
        now = next.at
        timers.delete(next)
        next.callback()
        await settled()
      }
      now = end
    },
    waits: () => [...timers].map(({ at }) => at - now).sort((a, b) => a - b),
  }
}
