/** Turns: many tasks share the event loop in slices, so that heartbeats, health and live changes go between them. */

import { setImmediate as yieldLoop } from "node:timers/promises"

/** After so long the event loop has its turn. Milliseconds. */
const SLICE_MS = 2

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
      let sliceStart = performance.now()
      for (const go of round) {
        go()
        // Whoever was waiting runs before this goes on.
        await Promise.resolve()
        if (performance.now() - sliceStart > SLICE_MS) {
          await yieldLoop()
          sliceStart = performance.now()
        }
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
