/** Replays: the returning clients that are not live yet. Each catches up and then, between two batches, goes live. */

import { parseCursor } from "../change/cursor.ts"
import type { Connection } from "../fanout/connection.ts"
import { createSliceQueue } from "../lib/time-slice.ts"
import type { Log } from "../telemetry/log.ts"
import { CatchUp, type CatchUpDeps } from "./catch-up.ts"
import { createFrameCache } from "./frame-cache.ts"
import type { Joined } from "./returning.ts"

/** Where a connection goes when its replay is over. */
export interface LivePlaces {
  /** Makes the connection live. */
  place(connection: Connection, channels: ReadonlySet<string>): void
}

export interface ReplayDeps extends Omit<CatchUpDeps, "frameCache" | "turns" | "goLive"> {
  live: LivePlaces
  log: Log
}

export interface Replays {
  /** @param answer called once, before the first change and in the same turn. */
  start(
    connection: Connection,
    channels: ReadonlySet<string>,
    since: string,
    answer: (joined: Joined) => void,
  ): void
  /** The channels of a connection in a replay; undefined if it is in none. */
  channels(connection: Connection): ReadonlySet<string> | undefined
  /** Takes channels away at once, and applies the connection's new rights. */
  narrow(connection: Connection, channels: ReadonlySet<string>): void
  /** Runs when the connection is live. */
  afterwards(connection: Connection, act: () => void): void
  cancel(connection: Connection): void
  connections(): Iterable<Connection>
  size(): number
}

interface Replay {
  readonly catchUp: CatchUp
  readonly afterwards: Array<() => void>
}

export function createReplays({ live, log, ...deps }: ReplayDeps): Replays {
  const running = new Map<Connection, Replay>()
  const catchUpDeps: CatchUpDeps = {
    ...deps,
    frameCache: createFrameCache(),
    turns: createSliceQueue(),
    goLive,
  }

  function goLive({ connection, channels }: CatchUp): void {
    const replay = running.get(connection)
    // The client may have been closed by its answer, because it does not read.
    if (replay === undefined) return
    cancel(connection)
    live.place(connection, channels)
    connection.pump()
    for (const act of replay.afterwards) act()
  }

  function cancel(connection: Connection): void {
    running.get(connection)?.catchUp.cancel()
    running.delete(connection)
  }

  return {
    start(connection, channels, since, answer) {
      const cursor = parseCursor(since)
      const from = cursor ?? deps.position.head
      if (from === undefined) return
      const catchUp = new CatchUp({ connection, channels, since: from, answer }, catchUpDeps)
      running.set(connection, { catchUp, afterwards: [] })
      if (cursor === undefined) catchUp.refuse("malformed")
      else
        catchUp.run().catch((error: Error) => {
          log.error(
            { event: "replay_failed", error: error.message },
            "a replay failed: the client tries again",
          )
          catchUp.interrupt()
        })
    },
    channels: (connection) => running.get(connection)?.catchUp.channels,
    narrow(connection, channels) {
      running.get(connection)?.catchUp.narrow(channels)
    },
    afterwards(connection, act) {
      running.get(connection)?.afterwards.push(act)
    },
    cancel,
    connections: () => running.keys(),
    size: () => running.size,
  }
}
