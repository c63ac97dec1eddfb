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
