/** The router: which lanes there are, and which of them a change concerns. */

import type { Change, TableChange } from "./change.ts"
import { Lane } from "./lane.ts"
import { concernsEveryUser, type Subscription, subscriptionKey, usersOf, view } from "./subscription.ts"

export interface Router {
  /** The lane of a subscription, made if it is the first. */
  laneFor(subscription: Subscription): Lane
  /** Forgets a lane that nobody is in. */
  retire(lane: Lane | undefined): void
  lanes(): Iterable<Lane>
  size(): number
  /** Puts each change among the sights of the lanes that see it. */
  route(changes: readonly Change[]): { touched: Set<Lane>; unseen: number }
}

export function createRouter(): Router {
  const lanes = new Map<string, Lane>()
  const byChannel = new Map<string, Set<Lane>>()

  /** The lanes that a change may concern; whether they see it is decided by `view`. */
  function candidates(change: Change): Iterable<Lane> {
    if (change.kind === "table") return lanes.values()
    if (change.kind === "message") return byChannel.get(change.channel) ?? []
    const found = new Set<Lane>()
    const collect = (channel: string) => {
      for (const lane of byChannel.get(channel) ?? []) found.add(lane)
    }
    change.before?.channels.forEach(collect)
    change.after?.channels.forEach(collect)
    return found
  }

  function routeShared(change: Change, touched: Set<Lane>): boolean {
    let seen = false
    for (const lane of candidates(change)) {
      const as = view(change, lane.subscription)
      if (as === "none") continue
      lane.sights.push({ change, as })
      touched.add(lane)
      seen = true
    }
    return seen
  }

  /** Notes the users whose own channel shows them more than their lane does. */
  function routeOwn(change: Change, touched: Set<Lane>): boolean {
    let seen = false
    for (const lane of lanes.values()) {
      for (const user of change.kind === "table" ? usersOfTable(change, lane) : usersOf(change)) {
        if (!lane.users.has(user)) continue
        if (view(change, lane.subscription, `user:${user}`) === view(change, lane.subscription)) continue
        lane.ownUsers.add(user)
        touched.add(lane)
        seen = true
      }
    }
    return seen
  }

  return {
    laneFor(subscription) {
      const key = subscriptionKey(subscription)
      let lane = lanes.get(key)
      if (lane === undefined) {
        lane = new Lane(subscription)
        lanes.set(key, lane)
        for (const channel of subscription.channels) {
          const set = byChannel.get(channel) ?? new Set()
          byChannel.set(channel, set.add(lane))
        }
      }
      return lane
    },
    retire(lane) {
      if (lane === undefined || lane.members.length > 0) return
      lanes.delete(lane.key)
      for (const channel of lane.subscription.channels) {
        const set = byChannel.get(channel)
        set?.delete(lane)
        if (set?.size === 0) byChannel.delete(channel)
      }
    },
    lanes: () => lanes.values(),
    size: () => lanes.size,
    route(changes) {
      const touched = new Set<Lane>()
      let unseen = 0
      for (const change of changes) {
        const shared = routeShared(change, touched)
        const own = routeOwn(change, touched)
        if (!shared && !own) unseen++
      }
      return { touched, unseen }
    },
  }
}

const usersOfTable = (change: TableChange, lane: Lane): Iterable<string> =>
  concernsEveryUser(change) ? lane.users.keys() : []
