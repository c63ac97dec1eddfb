/** The live connections: those that take their changes from a lane. */

import type { Identity } from "../access/auth.ts"
import type { Connection } from "../fanout/connection.ts"
import type { Router } from "../fanout/router.ts"
import type { Position } from "../replay/position.ts"
import type { DerivedBoard } from "./derived-board.ts"

export interface Live {
  /** Gives an authenticated connection its place in a lane, or another place. */
  place(connection: Connection, channels: ReadonlySet<string>): void
  /** Takes a connection out of its lane; what it is owed stays owed. */
  depart(connection: Connection): void
  /** Takes a connection out of its lane; what it is owed is void. */
  release(connection: Connection): void
}

export interface LiveDeps {
  router: Router
  derivedBoard: DerivedBoard
  position: Pick<Position, "batch">
}

export function createLive({ router, derivedBoard, position }: LiveDeps): Live {
  return {
    place(connection, channels) {
      const identity = connection.identity as Identity
      const before = connection.lane
      const lane = router.laneFor({ channels, rights: identity.rights, filter: connection.filter })
      if (lane.members.length === 0) derivedBoard.fill(lane)
      // Rights may name thousands of committees, and thousands of tokens the same: they share one object.
      connection.identity = { ...identity, rights: lane.subscription.rights }
      connection.filter = lane.subscription.filter
      connection.enter(lane, position.batch)
      router.retire(before)
    },
    depart(connection) {
      const { lane } = connection
      connection.depart()
      router.retire(lane)
    },
    release(connection) {
      const { lane } = connection
      connection.leave()
      router.retire(lane)
    },
  }
}
