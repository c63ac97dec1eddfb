/** Time slices: long work is cut up, so that heartbeats, health checks and live changes run in between. */

import { setImmediate as yieldLoop } from "node:timers/promises"

/** How long work runs before the event loop gets a turn. Milliseconds. */
const SLICE_MS = 2

export class TimeSlice {
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

/** Does something to each, in slices. */
export async function inSlices<T>(items: Iterable<T>, act: (item: T) => void): Promise<void> {
  const slice = new TimeSlice()
  for (const item of items) {
    act(item)
    if (slice.over) await slice.turn()
  }
}

/** Tasks that share the event loop in slices, in the order in which they asked. */
export interface SliceQueue {
  /** Resolves when it is the caller's turn to work, which ends when it next awaits something. */
  next(): Promise<void>
}

export function createSliceQueue(): SliceQueue {
  let waiting: Array<() => void> = []
  let running = false

  async function run(): Promise<void> {
    running = true
    while (waiting.length > 0) {
      const round = waiting
      waiting = []
      const slice = new TimeSlice()
      for (const go of round) {
        go()
        // The task that was waiting runs before this goes on.
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
