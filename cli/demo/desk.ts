/** What those who write in a night share: its script, its clock, the register, and what has been written. */

import { setTimeout as sleep } from "node:timers/promises"
import type { Clock } from "./clock.ts"
import type { Register } from "./register.ts"
import type { Script, Task } from "./script.ts"
import type { Tally } from "./tally.ts"

/** What is counted for the progress line; `entries` of the returns only, each once. */
export type Counts = Record<
  "entries" | "verified" | "corrected" | "withdrawn" | "pledges" | "confirmed" | "present",
  number
>

export interface Desk {
  script: Script
  clock: Clock
  register: Register
  tally: Tally
  counts: Counts
  /** Told apart from other nights in the same tables by this: `entered_by` ends with it. */
  night: string
  signal: AbortSignal
}

/** Waits until a part of the night has passed. @returns false if the night was ended meanwhile. */
export async function isTime({ clock, signal }: Desk, part: number): Promise<boolean> {
  await sleep(clock.until(part), undefined, { signal }).catch(() => {})
  return !signal.aborted
}

/** What a task is about, where it is no sheet. The invented night has one election. */
export const placeOf = (
  { register }: Desk,
  { committee }: Task,
): { election: number; committee: number } => ({
  election: register.elections[0] as number,
  committee: register.committees[committee] as number,
})

export const inventVoter = (): string => `Voter ${Math.ceil(Math.random() * 100_000)}`
