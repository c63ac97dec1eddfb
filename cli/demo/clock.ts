/** The clock of the night: hours of a day and an evening, pressed into the seconds that the demo lasts. */

const HOUR_MS = 3_600_000

export class Clock {
  readonly #began = performance.now()
  readonly #midnight = new Date().setHours(0, 0, 0, 0)
  readonly #seconds: number
  readonly #first: number
  readonly #last: number

  /** @param last may be after midnight: 26 is two o'clock. */
  constructor(seconds: number, { first, last }: { first: number; last: number }) {
    this.#seconds = seconds
    this.#first = first
    this.#last = last
  }

  /** What has passed of the night: from 0 on, 1 at its end. */
  now(): number {
    return (performance.now() - this.#began) / 1_000 / this.#seconds
  }

  /** Until a part of the night has passed. Milliseconds, 0 if it has. */
  until(part: number): number {
    return Math.max(0, (part - this.now()) * this.#seconds * 1_000)
  }

  /** The time of day at a part of the night. */
  at(part: number): Date {
    return new Date(this.#midnight + (this.#first + part * (this.#last - this.#first)) * HOUR_MS)
  }

  /** The parts at which the hours strike, the end included. */
  hours(): number[] {
    const length = this.#last - this.#first
    return Array.from({ length }, (_, n) => (n + 1) / length)
  }
}
