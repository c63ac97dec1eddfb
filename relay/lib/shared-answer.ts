/** One answer for all who ask at about the same time, so that many who ask cost little more than one. */

import { type Clock, systemClock } from "./clock.ts"

/** Making answers may take this share of the time, whoever asks. */
const DUTY = 0.1
/** However long one takes, who asks next waits no longer than this for it to begin. Milliseconds. */
const MAX_REST_MS = 1_000

/**
 * Shares what `make` answers. An answer is made after all who get it have asked, and none while another is being made or
 * just was: who asks meanwhile gets the next.
 */
export function shareAnswers<T>(make: () => Promise<T>, clock: Clock = systemClock): () => Promise<T> {
  let next: Promise<T> | undefined
  let rested: Promise<void> = Promise.resolve()

  async function makeNext(): Promise<T> {
    await rested
    next = undefined
    const startedAt = clock.now()
    const made = make()
    rested = made.then(
      () => rest(startedAt),
      () => rest(startedAt),
    )
    return made
  }

  function rest(startedAt: number): Promise<void> {
    const ms = Math.min(MAX_REST_MS, (clock.now() - startedAt) * (1 / DUTY - 1))
    return new Promise((resolve) => void clock.after(ms, resolve))
  }

  return () => {
    next ??= makeNext()
    return next
  }
}
