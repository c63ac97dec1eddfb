/** Hub stats: how many connections there are, whose, in which channels, and what waits for them. */

import type { Connection } from "../fanout/connection.ts"
import type { Router } from "../fanout/router.ts"
import type { Replays } from "../replay/replay.ts"
import type { HubStats } from "../telemetry/counts.ts"

export interface HubCounter {
  /** What needs no counting. Users without a live connection are not included. */
  size(): { connections: number; users: number; replaying: number; lanes: number }
  /** What waits for slow connections: in their sockets, each for itself, and in lanes, once for all. Bytes. */
  held(): { sockets: number; lanes: number }
  stats(): HubStats
}

export interface HubCounterDeps {
  connections: ReadonlySet<Connection>
  router: Router
  replays: Replays
}

export function createHubCounter({ connections, router, replays }: HubCounterDeps): HubCounter {
  return {
    size: () => ({
      connections: connections.size,
      users: router.users(),
      replaying: replays.size(),
      lanes: router.size(),
    }),
    held() {
      let sockets = 0
      for (const { queued } of connections) sockets += queued
      return { sockets, lanes: router.held() }
    },
    stats() {
      const users = new Map<string, number>()
      const channels = new Map<string, number>()
      const add = (counts: Map<string, number>, name: string, more: number) =>
        counts.set(name, (counts.get(name) ?? 0) + more)
      for (const lane of router.lanes()) {
        for (const [user, count] of lane.users) add(users, user, count)
        for (const channel of lane.subscription.channels) add(channels, channel, lane.members.length)
      }
      for (const connection of replays.connections()) {
        add(users, connection.user, 1)
        for (const channel of replays.channels(connection) ?? []) add(channels, channel, 1)
      }
      return {
        connections: connections.size,
        replaying: replays.size(),
        users: Object.fromEntries(users),
        channels: Object.fromEntries(channels),
        lanes: router.size(),
      }
    },
  }
}
