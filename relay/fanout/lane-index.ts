/** The lane index: all lanes, by what can lead a change to them. */

import type { Change, Image } from "../change/change.ts"
import { Multimap } from "../lib/multimap.ts"
import { Lane } from "./lane.ts"
import type { LaneMemory } from "./lane-memory.ts"
import { namesByValue, placeOf } from "./placement.ts"
import { type Subscription, subscriptionKey } from "./visibility.ts"

export interface Lanes {
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
}

export interface LaneIndex extends Lanes {
  /** The lanes that a change may concern; whether they see it is decided by `view`. */
  candidates(change: Change): Iterable<Lane>
  /** The lanes that a user is in. */
  lanesOf(user: string): Iterable<Lane>
}

/** @param memory what all lanes hold. */
export function createLaneIndex(memory: LaneMemory): LaneIndex {
  const lanes = new Map<string, Lane>()
  /** By the channels that they joined. */
  const byChannel = new Multimap<Lane>()
  /** By their placement: names of which a row must have one. */
  const byRow = new Multimap<Lane>()
  /** By the column whose values are those names. */
  const byColumn = new Multimap<Lane>()
  const byUser = new Multimap<Lane>()

  return {
    laneFor(subscription) {
      const key = subscriptionKey(subscription)
      let lane = lanes.get(key)
      if (lane === undefined) {
        lane = new Lane(subscription, byUser, memory)
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
      lane.trim()
      lanes.delete(lane.key)
      for (const channel of lane.subscription.channels) byChannel.delete(channel, lane)
      const { names, column } = placeOf(lane.subscription)
      for (const name of names) byRow.delete(name, lane)
      if (column !== undefined) byColumn.delete(column, lane)
    },
    lanes: () => lanes.values(),
    size: () => lanes.size,
    users: () => byUser.size,
    candidates(change) {
      if (change.kind === "table") return lanes.values()
      if (change.kind === "message") return byChannel.get(change.channel)
      const { meta } = change
      const found = new Set<Lane>()
      const collect = (name: string) => {
        for (const lane of byRow.get(name)) found.add(lane)
      }
      const collectAll = (image: Image) => {
        image.channels.forEach(collect)
        for (const column of byColumn.names()) {
          if (!change.oversize || image.row.has(column)) namesByValue(meta, image, column).forEach(collect)
          else for (const lane of byColumn.get(column)) found.add(lane)
        }
      }
      if (change.before !== undefined) collectAll(change.before)
      if (change.after !== undefined) collectAll(change.after)
      return found
    },
    lanesOf: (user) => byUser.get(user),
  }
}
