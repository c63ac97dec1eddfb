/**
 * Room: what waits in all lanes together is bounded. Beyond that the connections of the user for whom most is kept are
 * closed, the one that is furthest behind first, until it is enough. They come back with their cursors.
 */

import type { Lane, Member } from "./lane.ts"
import type { Router } from "./router.ts"

interface Holding {
  bytes: number
  readonly members: Array<{ member: Member; lane: Lane; bytes: number }>
}

/** Of what may be held, how much is left when room was made: so that it need not be made again at once. */
const KEPT = 0.75

/** Makes room where the lanes hold more than so many bytes. */
export function makeRoom({ lanes, held }: Pick<Router, "lanes" | "held">, limitBytes: number): void {
  if (held() <= limitBytes) return
  const enough = limitBytes * KEPT
  for (let before = Number.POSITIVE_INFINITY; held() > enough && held() < before; ) {
    before = held()
    const most = largestOf(holdingsOf(lanes()))
    if (most === undefined) return
    for (const { member, lane } of most.members.sort((a, b) => b.bytes - a.bytes)) {
      if (held() <= enough) return
      member.giveUp()
      lane.trim()
    }
  }
}

/** What is kept for each user. */
function holdingsOf(lanes: Iterable<Lane>): Map<string, Holding> {
  const holdings = new Map<string, Holding>()
  for (const lane of lanes) {
    for (const member of lane.members) {
      const bytes = lane.bytesAfter(member.position)
      if (bytes === 0) continue
      const holding = holdings.get(member.user) ?? { bytes: 0, members: [] }
      holding.bytes += bytes
      holding.members.push({ member, lane, bytes })
      holdings.set(member.user, holding)
    }
  }
  return holdings
}

const largestOf = (holdings: ReadonlyMap<string, Holding>): Holding | undefined =>
  [...holdings.values()].reduce<Holding | undefined>(
    (most, holding) => (most === undefined || holding.bytes > most.bytes ? holding : most),
    undefined,
  )
