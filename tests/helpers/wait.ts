/** Waiting on a condition, with a deadline: the last resort where there is no signal to wait on. */

import { setTimeout as sleep } from "node:timers/promises"

export const DEADLINE_MS = 20_000

/** Polls until the condition holds. @throws Error that says what was waited for. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  deadlineMs = DEADLINE_MS,
): Promise<void> {
  const deadline = Date.now() + deadlineMs
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain for: ${what}`)
    await sleep(5)
  }
}
