/**
 * The read queue: readers that wait for a read of the log. A turn goes to the user whose reads have taken the least time,
 * and to the least far back of that user, or to one that has been passed over for long. A user has one read at a time;
 * whoever is about as far back shares it.
 */

import { FairShare } from "../lib/fair-share.ts"
import { type PendingRead, type Reader, ReadGroup } from "./read-group.ts"

/** How many transactions in flight the positions of a read may name together: a true one names few, a made-up one thousands. */
const MAX_IN_FLIGHT = 8_192

/** So many turns of its user may go to others before it has one. */
const MAX_PASSED_OVER = 8

export class ReadQueue {
  readonly #share = new FairShare()
  /** The users who have a read under way. */
  readonly #reading = new Set<string>()
  /** Each with how many turns its user has had meanwhile for others. */
  readonly #waiting = new Map<PendingRead, number>()
  /** How many of each user wait at each position. Thousands may return at once, and each asks how many wait. */
  readonly #positionsOf = new Map<string, Map<string, number>>()

  get size(): number {
    return this.#waiting.size
  }

  add(...reads: readonly PendingRead[]): void {
    for (const read of reads) {
      const { user, since } = read.reader
      const positions = this.#positionsOf.get(user) ?? new Map<string, number>()
      if (positions.size === 0) this.#share.enter(user)
      this.#positionsOf.set(user, positions.set(since.text, (positions.get(since.text) ?? 0) + 1))
      this.#waiting.set(read, 0)
    }
  }

  /** Whether at most so many positions of its user would wait with this one. One that waits already costs nothing. */
  hasRoom({ user, since }: Reader, positions: number): boolean {
    const waiting = this.#positionsOf.get(user)
    return waiting === undefined || waiting.size < positions || waiting.has(since.text)
  }

  /** Takes out the readers that have left while they waited: nothing is read for them, and their places are free. */
  dropGone(): void {
    for (const read of this.#waiting.keys()) {
      if (!read.reader.gone()) continue
      this.#remove(read)
      read.settle({ kind: "failed" })
    }
  }

  /** Whether anybody waits who is not in the group, and could be read for. */
  othersThan(group: ReadGroup): boolean {
    for (const { reader } of this.#waiting.keys())
      if (!this.#reading.has(reader.user) && !group.users.has(reader.user)) return true
    return false
  }

  /** Takes the next readers. They are read for until `release`. @returns undefined if all who wait have a read under way. */
  take(): ReadGroup | undefined {
    const firsts = this.#firsts()
    const leader = this.#leaderOf(firsts)
    if (leader === undefined) return undefined
    const key = keyOf(leader)
    const members: [PendingRead, ...PendingRead[]] = [leader]
    const positions = new Set<string>()
    let inFlight = 0
    for (const read of [leader, ...this.#waiting.keys()]) {
      const { user, since } = read.reader
      const first = firsts.get(user)
      if (first === undefined || keyOf(first) !== key || keyOf(read) !== key) continue
      if (!positions.has(since.text)) inFlight += since.inFlight.size
      if (inFlight > MAX_IN_FLIGHT && read !== leader) break
      positions.add(since.text)
      if (read !== leader) members.push(read)
    }
    const group = new ReadGroup(members)
    for (const read of members) this.#remove(read)
    for (const [read, turns] of this.#waiting)
      if (group.users.has(read.reader.user)) this.#waiting.set(read, turns + 1)
    for (const user of group.users) this.#reading.add(user)
    this.#share.begin(leader.reader.user, (user) => this.#positionsOf.has(user) || this.#reading.has(user))
    return group
  }

  /** The read for a group has ended. @param ms that it took. */
  release({ users }: ReadGroup, ms: number): void {
    for (const user of users) {
      this.#reading.delete(user)
      this.#share.charge(user, ms / users.size)
    }
    this.#share.pass(ms, this.#positionsOf.size)
  }

  /** Takes out all that wait. */
  clear(): PendingRead[] {
    const all = [...this.#waiting.keys()]
    this.#waiting.clear()
    this.#positionsOf.clear()
    return all
  }

  #remove(read: PendingRead): void {
    const { user, since } = read.reader
    this.#waiting.delete(read)
    const positions = this.#positionsOf.get(user)
    const others = (positions?.get(since.text) ?? 1) - 1
    if (others > 0) positions?.set(since.text, others)
    else positions?.delete(since.text)
    if (positions?.size === 0) this.#positionsOf.delete(user)
  }

  /** The next of each user who has no read under way. */
  #firsts(): Map<string, PendingRead> {
    const firsts = new Map<string, PendingRead>()
    for (const read of this.#waiting.keys()) {
      const { user } = read.reader
      if (this.#reading.has(user)) continue
      const first = firsts.get(user)
      if (first === undefined || this.#goesBefore(read, first)) firsts.set(user, read)
    }
    return firsts
  }

  /** Where others come again and again who are less far back, whoever was passed over often enough has a turn too. */
  #goesBefore(one: PendingRead, other: PendingRead): boolean {
    const [patient, others] = [one, other].map((read) => (this.#waiting.get(read) ?? 0) >= MAX_PASSED_OVER)
    return patient === others ? goesBefore(one.reader, other.reader) : patient === true
  }

  #leaderOf(firsts: ReadonlyMap<string, PendingRead>): PendingRead | undefined {
    let leader: PendingRead | undefined
    let least = Number.POSITIVE_INFINITY
    for (const [user, read] of firsts) {
      const due = this.#share.due(user)
      if (leader !== undefined && (due > least || (due === least && !goesBefore(read.reader, leader.reader))))
        continue
      leader = read
      least = due
    }
    return leader
  }
}

/** The less far back goes first, and of two that are equally far the one that is half way. */
function goesBefore(one: Reader, other: Reader): boolean {
  if (one.since.xmin !== other.since.xmin) return one.since.xmin > other.since.xmin
  return one.rest !== undefined && other.rest === undefined
}

/** Readers that are about equally far back share a read, and so do those that were cut at the same place. */
const keyOf = ({ reader: { rest }, distance }: PendingRead): string =>
  rest === undefined ? String(distance) : `${rest.until.text} ${rest.after}`
