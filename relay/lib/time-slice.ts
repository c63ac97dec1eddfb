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

/** Tasks that share the event loop in slices: a turn for each owner in a circle, each owner's in the order in which they asked. */
export interface SliceQueue {
  /** Resolves when it is the caller's turn to work, which ends when it next awaits something. */
  next(owner: string): Promise<void>
}

export function createSliceQueue(): SliceQueue {
  const waiting = new Map<string, Array<() => void>>()
  let running = false

  /** The next task of the owner who has waited longest, who is the last in the circle from now on. */
  function take(): (() => void) | undefined {
    const [first] = waiting
    if (first === undefined) return undefined
    const [owner, tasks] = first
    waiting.delete(owner)
    const task = tasks.shift()
    if (tasks.length > 0) waiting.set(owner, tasks)
    return task
  }

  async function run(): Promise<void> {
    running = true
    const slice = new TimeSlice()
    for (let go = take(); go !== undefined; go = take()) {
      go()
      // The task that was waiting runs before this goes on.
      await Promise.resolve()
      if (slice.over || waiting.size === 0) await slice.turn()
    }
    running = false
  }

  return {
    next: (owner) =>
      new Promise((resolve) => {
        const tasks = waiting.get(owner)
        if (tasks === undefined) waiting.set(owner, [resolve])
        else tasks.push(resolve)
        if (!running) void run()
      }),
  }
}
