/** One clock for all processes of a run: CLOCK_MONOTONIC counts from the same moment in each of them. */

import { hrtime } from "node:process"

/** Microseconds. */
export function now(): number {
  const [seconds, nanoseconds] = hrtime()
  return seconds * 1e6 + nanoseconds / 1e3
}
