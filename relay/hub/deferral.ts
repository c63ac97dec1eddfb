/** Deferral: what a client asked for waits until it is live and no batch is in progress, so that it sees no batch by half. */

import type { Connection } from "../fanout/connection.ts"
import type { Position } from "../replay/position.ts"
import type { Replays } from "../replay/replay.ts"

/** How many messages of a client may wait. */
const MAX_DEFERRED = 32

export interface Deferral {
  /** Acts at once, or at the end of the replay or batch. @returns false if too much of the connection waits already. */
  whenLive(connection: Connection, act: () => void): boolean
}

export interface DeferralDeps {
  position: Pick<Position, "inBatch" | "afterBatch">
  replays: Pick<Replays, "channels" | "afterwards">
}

export function createDeferral({ position, replays }: DeferralDeps): Deferral {
  function whenLive(connection: Connection, act: () => void): boolean {
    const replaying = replays.channels(connection) !== undefined
    if (!replaying && !position.inBatch) {
      act()
      return true
    }
    if (connection.deferred >= MAX_DEFERRED) return false
    connection.deferred++
    const later = () => {
      connection.deferred--
      whenLive(connection, act)
    }
    if (replaying) replays.afterwards(connection, later)
    else position.afterBatch(later)
    return true
  }

  return { whenLive }
}
