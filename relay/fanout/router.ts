/** The router: which lanes there are, and which of them a change concerns. */

import type { Change, Image } from "../change/change.ts"
import { Multimap } from "../lib/multimap.ts"
import type { TimeSlice } from "../lib/time-slice.ts"
import { Lane } from "./lane.ts"
import { namesByValue, placeOf } from "./placement.ts"
import {
  concernsEveryUser,
  type Subscription,
  subscriptionKey,
  usersOf,
  view,
  visibleChangeOf,
} from "./visibility.ts"

export interface Router {
  /** The lane of a subscription, made if there is none. */
  laneFor(subscription: Subscription): Lane
  /** Whether there is one. */
  has(subscription: Subscription): boolean
  /** Removes a lane if it has no members. */
  retire(lane: Lane | undefined): void
  lanes(): Iterable<Lane>
  size(): number
  /** How many users are in lanes. */
  users(): number
  /** Adds each change to the lanes that see it. Works in slices; lanes may come and go meanwhile. */
  route(changes: readonly Change[], slice: TimeSlice): Promise<{ touched: Set<Lane>; unseen: number }>
}

export function createRouter(): Router {
  const lanes = new Map<string, Lane>()
  /** By the channels that they joined. */
  const byChannel = new Multimap<Lane>()
  /** By their placement: names of which a row must have one. */
  const byRow = new Multimap<Lane>()
  /** By the column whose values are those names. */
  const byColumn = new Multimap<Lane>()
  const byUser = new Multimap<Lane>()

  /** The lanes that a change may concern; whether they see it is decided by `view`. */
  function candidates(change: Change): Iterable<Lane> {
    if (change.kind === "table") return lanes.values()
    if (change.kind === "message") return byChannel.get(change.channel)
    const { meta } = change
    const found = new Set<Lane>()
    const collect = (name: string) => {
      for (const lane of byRow.get(name)) found.add(lane)
    }
    const collectAll = (image: Image) => {
      image.channels.forEach(collect)
      for (const column of byColumn.names()) namesByValue(meta, image, column).forEach(collect)
    }
    if (change.before !== undefined) collectAll(change.before)
    if (change.after !== undefined) collectAll(change.after)
    return found
  }

  function routeShared(change: Change, touched: Set<Lane>): boolean {
    let seen = false
    for (const lane of candidates(change)) {
      const visibleChange = visibleChangeOf(change, lane.subscription)
      if (visibleChange === undefined) continue
      lane.visibleChanges.push(visibleChange)
      touched.add(lane)
      seen = true
    }
    return seen
  }

  /** Finds the users whose own channel shows them more than their lane does. */
  function routeOwn(change: Change, touched: Set<Lane>): boolean {
    let seen = false
    const note = (user: string, lane: Lane): boolean => {
      if (view(change, lane.subscription, `user:${user}`) === view(change, lane.subscription)) return false
      lane.ownUsers.add(user)
      touched.add(lane)
      seen = true
      return true
    }
    if (change.kind === "table") {
      if (!concernsEveryUser(change)) return false
      // It names no rows, so it is the same for every user of a lane.
      for (const lane of lanes.values()) {
        for (const user of lane.users.keys()) if (!note(user, lane)) break
      }
    } else {
      for (const user of usersOf(change)) for (const lane of byUser.get(user)) note(user, lane)
    }
    return seen
  }

  return {
    laneFor(subscription) {
      const key = subscriptionKey(subscription)
      let lane = lanes.get(key)
      if (lane === undefined) {
        lane = new Lane(subscription, byUser)
        lanes.set(key, lane)
        for (const channel of subscription.channels) byChannel.add(channel, lane)
        const { names, column } = placeOf(subscription)
        for (const name of names) byRow.add(name, lane)
        if (column !== undefined) byColumn.add(column, lane)
      }
      return lane
    },
    has: (subscription) => lanes.has(subscriptionKey(subscription)),
    retire(lane) {
      if (lane === undefined || lane.members.length > 0) return
      lanes.delete(lane.key)
      for (const channel of lane.subscription.channels) byChannel.delete(channel, lane)
      const { names, column } = placeOf(lane.subscription)
      for (const name of names) byRow.delete(name, lane)
      if (column !== undefined) byColumn.delete(column, lane)
    },
    lanes: () => lanes.values(),
    size: () => lanes.size,
    users: () => byUser.size,
    async route(changes, slice) {
      const touched = new Set<Lane>()
      if (lanes.size === 0) return { touched, unseen: changes.length }
      let unseen = 0
      for (const change of changes) {
        const shared = routeShared(change, touched)
        const own = routeOwn(change, touched)
        if (!shared && !own) unseen++
        if (slice.over) await slice.turn()
      }
      return { touched, unseen }
    },
  }
}
