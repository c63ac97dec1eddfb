/** A wake-up: it ends a wait early. One that comes while nobody waits ends the next wait at once. */

import type { Clock } from "./clock.ts"
import { type Deferred, deferred } from "./deferred.ts"

/** For one waiter. */
export class Wakeup {
  readonly #clock: Clock
  /** One has come that has ended no wait yet. */
  #called = false
  #waiting: Deferred<void> | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  wake(): void {
    this.#called = true
    this.#waiting?.resolve()
  }

  /** Waits for a wake-up, at most for so many milliseconds. @returns whether one came. */
  async wait(ms: number): Promise<boolean> {
    if (!this.#called) {
      const waiting = deferred<void>()
      this.#waiting = waiting
      const cancel = this.#clock.after(ms, waiting.resolve)
      await waiting.promise
      cancel()
    }
    const called = this.#called
    this.#called = false
    return called
  }
}
