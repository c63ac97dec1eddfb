/** Waiting on a condition, with a deadline: the last resort where there is no signal to wait on. */

import { setTimeout as sleep } from "node:timers/promises"

/**
 * What a test waits for comes much sooner. This is for what never comes, and long enough for a machine that is forty times
 * slower, so that no result depends on it.
 */
export const DEADLINE_MS = 120_000

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
