/** A clock that the test moves, for code that is given its time. */

import type { Clock } from "../../client/clock.ts"

export class FakeClock implements Clock {
  #wall = 1_800_000_000_000
  #steady = 0
  readonly #alarms = new Set<{ at: number; ring: () => void }>()

  wall(): number {
    return this.#wall
  }

  steady(): number {
    return this.#steady
  }

  setAlarm(ms: number, ring: () => void): () => void {
    const alarm = { at: this.#steady + ms, ring }
    this.#alarms.add(alarm)
    return () => this.#alarms.delete(alarm)
  }

  /** In how many milliseconds each alarm rings, the next first. */
  get alarms(): number[] {
    return [...this.#alarms].map(({ at }) => at - this.#steady).sort((a, b) => a - b)
  }

  /** Time passes, and what is due rings in its order. */
  pass(ms: number): void {
    const end = this.#steady + ms
    for (;;) {
      const [next] = [...this.#alarms].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)
      this.#moveTo(next?.at ?? end)
      if (next === undefined) return
      this.#alarms.delete(next)
      next.ring()
    }
  }

  /** The machine sleeps, and its steady clock with it: every alarm is late by this. */
  sleep(ms: number): void {
    this.#wall += ms
  }

  setBack(ms: number): void {
    this.#wall -= ms
  }

  #moveTo(steady: number): void {
    this.#wall += steady - this.#steady
    this.#steady = steady
  }
}
