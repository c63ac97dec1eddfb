/** The drain: connections are closed some at a time, so that those who take them over are not stormed. */

import { setTimeout as sleep } from "node:timers/promises"
import type { Connection } from "../fanout/connection.ts"
import { TimeSlice } from "../lib/time-slice.ts"
import { CloseCode } from "../protocol/close-code.ts"

export interface Pace {
  /** Connections closed a second; Infinity: all at once. */
  perSecond: number
  /** More are closed a second if they would not be closed within this time. */
  timeoutMs: number
}

/** The part of the time in which all are told; the rest is for their sockets to close. */
const TOLD = 0.8
const LOOK_MS = 10

/** Tells everybody to come back and waits, for so long at most, until they are gone. */
export async function drain(
  connections: ReadonlySet<Connection>,
  { perSecond, timeoutMs }: Pace,
): Promise<void> {
  const began = performance.now()
  const perMs = Math.max(perSecond / 1_000, connections.size / (TOLD * timeoutMs))
  const slice = new TimeSlice()
  let told = 0
  for (const connection of connections) {
    while (told > (performance.now() - began) * perMs) await sleep(LOOK_MS)
    connection.close(CloseCode.drain, "the relay is stopping: come back within 3 s")
    told++
    if (slice.over) await slice.turn()
  }
  while (connections.size > 0 && performance.now() - began < timeoutMs) await sleep(LOOK_MS)
  for (const connection of connections) connection.terminate()
}
