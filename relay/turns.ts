/** Turns: many tasks share the event loop in slices, in the order in which they asked. */

import { setImmediate as yieldLoop } from "node:timers/promises"
import { Slice } from "./slice.ts"

export interface Turns {
  /** Resolves when the caller may work, until it next waits for anything. */
  next(): Promise<void>
}

export function createTurns(): Turns {
  let waiting: Array<() => void> = []
  let running = false

  async function run(): Promise<void> {
    running = true
    while (waiting.length > 0) {
      const round = waiting
      waiting = []
      const slice = new Slice()
      for (const go of round) {
        go()
        // Whoever was waiting runs before this goes on.
        await Promise.resolve()
        if (slice.over) await slice.turn()
      }
      await yieldLoop()
    }
    running = false
  }

  return {
    next: () =>
      new Promise((resolve) => {
        waiting.push(resolve)
        if (!running) void run()
      }),
  }
}
