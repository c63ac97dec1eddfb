/** Slices: long work is cut, so that heartbeats, health and live changes go between. */

import { setImmediate as yieldLoop } from "node:timers/promises"

/** After so long the event loop has its turn. Milliseconds. */
const SLICE_MS = 2

export class Slice {
  #end = performance.now() + SLICE_MS

  /** Whether the event loop should turn before the work goes on. */
  get over(): boolean {
    return performance.now() > this.#end
  }

  /** Resolves in a later turn of the event loop, in which the next slice begins. */
  async turn(): Promise<void> {
    await yieldLoop()
    this.#end = performance.now() + SLICE_MS
  }
}

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
