/**
 * Pacing: between the pages of a huge batch readers get time, so that their lanes do not overflow: as much as most of them
 * need, and never what the slowest wants. Who falls off the lane comes back with its cursor, and the replay waits for it
 * alone.
 */

import type { Clock } from "../lib/clock.ts"
import type { Lane } from "./lane.ts"

/** A page waits no longer than this. Milliseconds. */
const RELIEF_MS = 1_000
/** When most have read enough, the others get this. Milliseconds. */
const GRACE_MS = 50
/** Whose socket has taken nothing for so long is not waited for. Milliseconds. */
const IDLE_MS = 250
const LOOK_MS = 2

/**
 * Gives the readers of lanes time.
 * @param bytes how far a reader may be behind.
 * @param began when the page was begun. The slower half gets as long as that and the faster half took, or a little more.
 */
export async function relieve(
  lanes: ReadonlySet<Lane>,
  bytes: number,
  began: number,
  clock: Clock,
): Promise<void> {
  const start = clock.now()
  let enoughAt: number | undefined
  for (;;) {
    const now = clock.now()
    const share = shareBehind(lanes, bytes, now)
    if (share === 0 || now - start > RELIEF_MS) return
    if (share <= 0.5) {
      enoughAt ??= now
      if (now - enoughAt > Math.max(GRACE_MS, enoughAt - began)) return
    }
    await new Promise<void>((resolve) => clock.after(LOOK_MS, resolve))
    for (const lane of lanes) lane.trim()
  }
}

/**
 * What share of the users who read is behind, from 0 to 1. A user counts once, however many connections he has, of which
 * each is a part of him.
 */
function shareBehind(lanes: ReadonlySet<Lane>, bytes: number, now: number): number {
  const behind = new Map<string, number>()
  const reading = new Map<string, number>()
  const add = (counts: Map<string, number>, user: string, more: number) =>
    counts.set(user, (counts.get(user) ?? 0) + more)
  for (const lane of lanes) {
    for (const [user, count] of lane.users) add(reading, user, count)
    if (lane.bytes <= bytes) continue
    for (const member of lane.members) {
      if (lane.bytesAfter(member.position) <= bytes) continue
      const reads = now - member.tookAt(now) < IDLE_MS
      if (reads) add(behind, member.user, 1)
      else add(reading, member.user, -1)
    }
  }
  let [users, parts] = [0, 0]
  for (const [user, count] of reading) {
    if (count === 0) continue
    users++
    parts += (behind.get(user) ?? 0) / count
  }
  return users === 0 ? 0 : parts / users
}
