/** Time, which tests make themselves. */

import { setAlarm } from "./alarm.ts"

export interface Clock {
  /** Milliseconds since 1970. May be set, and goes on while the machine sleeps. */
  wall(): number
  /** Milliseconds since some moment. Is never set, and may stand still while the machine sleeps. */
  steady(): number
  /** Calls back once, after so many milliseconds or later. @returns what cancels it. */
  setAlarm(ms: number, ring: () => void): () => void
}

const wall = () => Date.now()

export const systemClock: Clock = {
  wall,
  // Not everything that runs JavaScript has it.
  steady: () => (globalThis as { performance?: { now(): number } }).performance?.now() ?? wall(),
  setAlarm,
}
