/** Refreshes: who waits for a read of the log that begins after they asked. */

import { type Clock, sleep } from "../lib/clock.ts"
import type { Wakeup } from "../lib/wakeup.ts"

export class Refreshes {
  readonly #clock: Clock
  readonly #wakeup: Wakeup
  readonly #waiting = new Set<AbortController>()

  /** @param wakeup makes the feed read. */
  constructor(wakeup: Wakeup, clock: Clock) {
    this.#wakeup = wakeup
    this.#clock = clock
  }

  /** Asks for one. @returns false if it has not ended within so many milliseconds. */
  async request(timeoutMs: number): Promise<boolean> {
    const answered = new AbortController()
    this.#waiting.add(answered)
    this.#wakeup.wake()
    await sleep(this.#clock, timeoutMs, answered.signal)
    this.#waiting.delete(answered)
    return answered.signal.aborted
  }

  /** A read begins. @returns what answers those who have asked by now. */
  begin(): () => void {
    const asked = [...this.#waiting]
    return () => {
      for (const answered of asked) answered.abort()
    }
  }
}
