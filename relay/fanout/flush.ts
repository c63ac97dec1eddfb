/** Flushes lanes: what they hold goes to the sockets of their members, in slices that leave the event loop to others. */

import { TimeSlice } from "../lib/time-slice.ts"
import type { Lane } from "./lane.ts"

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
