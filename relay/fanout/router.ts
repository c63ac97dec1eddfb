/** The router: puts each change into the lanes that see it. */

import type { Change } from "../change/change.ts"
import type { TimeSlice } from "../lib/time-slice.ts"
import type { Lane } from "./lane.ts"
import { createLaneIndex, type Lanes } from "./lane-index.ts"
import { LaneMemory } from "./lane-memory.ts"
import { concernsEveryUser, usersOf, view, visibleChangeOf } from "./visibility.ts"

export interface Router extends Lanes {
  /** What all lanes hold, in bytes. Frames that several share count once. */
  held(): number
  /** Adds each change to the lanes that see it. Works in slices; lanes may come and go meanwhile. */
  route(changes: readonly Change[], slice: TimeSlice): Promise<{ touched: Set<Lane>; unseen: number }>
}

export function createRouter(): Router {
  const memory = new LaneMemory()
  const index = createLaneIndex(memory)

  async function routeShared(change: Change, touched: Set<Lane>, slice: TimeSlice): Promise<boolean> {
    let seen = false
    for (const lane of index.candidates(change)) {
      const visibleChange = visibleChangeOf(change, lane.subscription)
      if (visibleChange !== undefined) {
        lane.visibleChanges.push(visibleChange)
        touched.add(lane)
        seen = true
      }
      if (slice.over) await slice.turn()
    }
    return seen
  }

  /** Finds the users whose own channel shows them more than their lane does. */
  async function routeOwn(change: Change, touched: Set<Lane>, slice: TimeSlice): Promise<boolean> {
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
      for (const lane of index.lanes()) {
        for (const user of lane.users.keys()) if (!note(user, lane)) break
        if (slice.over) await slice.turn()
      }
    } else {
      for (const user of usersOf(change)) {
        for (const lane of index.lanesOf(user)) {
          note(user, lane)
          if (slice.over) await slice.turn()
        }
      }
    }
    return seen
  }

  return {
    laneFor: index.laneFor,
    has: index.has,
    retire: index.retire,
    lanes: index.lanes,
    size: index.size,
    users: index.users,
    held: () => memory.bytes,
    async route(changes, slice) {
      const touched = new Set<Lane>()
      if (index.size() === 0) return { touched, unseen: changes.length }
      let unseen = 0
      for (const change of changes) {
        const shared = await routeShared(change, touched, slice)
        const own = await routeOwn(change, touched, slice)
        if (!shared && !own) unseen++
        if (slice.over) await slice.turn()
      }
      return { touched, unseen }
    },
  }
}
