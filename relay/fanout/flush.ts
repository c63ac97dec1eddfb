/** Flushes lanes: what they hold goes to the sockets of their members, in slices that leave the event loop to others. */

import { setTimeout as sleep } from "node:timers/promises"
import { TimeSlice } from "../lib/time-slice.ts"
import type { Lane } from "./lane.ts"

/** How long each page of a huge batch waits for readers that keep up. Milliseconds. */
const RELIEF_MS = 1_000

/** Lets each member write what it may. */
export async function flush(lanes: Iterable<Lane>, slice = new TimeSlice()): Promise<void> {
  for (const lane of lanes) {
    // Members that join meanwhile have nothing to write yet, and those that leave nothing more.
    const members = [...lane.members]
    const start = lane.start++
    for (let i = 0; i < members.length; i++) {
      members[(start + i) % members.length]?.pump()
      if (slice.over) await slice.turn()
    }
    lane.trim()
  }
}

/** Gives readers time before the next page of a huge batch. @param bytes what a lane may still hold. */
export async function relieve(lanes: Iterable<Lane>, bytes: number): Promise<void> {
  const deadline = performance.now() + RELIEF_MS
  for (const lane of lanes) {
    while (lane.bytes > bytes && performance.now() < deadline) {
      await sleep(2)
      lane.trim()
    }
  }
}

/** Sends lanes frames that belong to no batch. */
export async function announce(
  lanes: Iterable<Lane>,
  frames: readonly Buffer[],
  laneBytes: number,
): Promise<void> {
  const shared = [Buffer.concat(frames)]
  const entry = { batch: Number.POSITIVE_INFINITY, shared, own: undefined, bytes: shared[0]?.length ?? 0 }
  const slice = new TimeSlice()
  for (const lane of lanes) {
    lane.append(entry, laneBytes)
    await flush([lane], slice)
  }
}
