/** A wake-up: it ends a wait early. One that comes while nobody waits ends the next wait at once. */

import type { Clock } from "./clock.ts"

/** For one waiter. */
export class Wakeup {
  readonly #clock: Clock
  #called = new AbortController()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  wake(): void {
    this.#called.abort()
  }

  /** Waits for a wake-up, at most for so many milliseconds. @returns whether one came. */
  async wait(ms: number): Promise<boolean> {
    const { signal } = this.#called
    if (!signal.aborted) await this.#clock.sleep(ms, signal)
    if (!signal.aborted) return false
    this.#called = new AbortController()
    return true
  }
}
