/** The drain: closes connections a few at a time, so that they do not all reconnect elsewhere at once. */

import { setTimeout as sleep } from "node:timers/promises"
import type { Connection } from "../fanout/connection.ts"
import { TimeSlice } from "../lib/time-slice.ts"
import { CloseCode } from "../protocol/close-code.ts"

export interface Pace {
  /** Connections closed a second; Infinity: all at once. */
  perSecond: number
  /** It closes more a second if they would not all be closed within this time. */
  timeoutMs: number
}

/** The part of the time in which all are sent their close frame; the rest is for their sockets to close. */
const SENDING = 0.8
const LOOK_MS = 10

/** Asks every client to reconnect and waits until they are gone, no longer than the timeout. */
export async function drain(
  connections: ReadonlySet<Connection>,
  { perSecond, timeoutMs }: Pace,
): Promise<void> {
  const began = performance.now()
  const perMs = Math.max(perSecond / 1_000, connections.size / (SENDING * timeoutMs))
  const slice = new TimeSlice()
  let sent = 0
  for (const connection of connections) {
    while (sent > (performance.now() - began) * perMs) await sleep(LOOK_MS)
    connection.close(CloseCode.drain, "the relay is stopping: come back within 3 s")
    sent++
    if (slice.over) await slice.turn()
  }
  while (connections.size > 0 && performance.now() - began < timeoutMs) await sleep(LOOK_MS)
  for (const connection of connections) connection.terminate()
}
