/** A lane: shared by the connections that see the same. It holds each frame once, and each connection reads from it. */

import type { Change } from "../change/change.ts"
import type { Multimap } from "../lib/multimap.ts"
import { bytesOf } from "./frames.ts"
import type { LaneEntry } from "./lane-entry.ts"
import type { LaneMemory } from "./lane-memory.ts"
import { LatestValues } from "./latest-values.ts"
import type { PartFrames } from "./part-frames.ts"
import { type Subscription, subscriptionKey, type VisibleChange, visibleChangesOf } from "./visibility.ts"

/** A reader of the lane. */
export interface Member {
  readonly user: string
  /** The next entry that it wants. */
  position: number
  /** Its index among the lane's members. */
  index: number
  /** Writes what it may from its position on. */
  pump(): void
  /** When its socket last took something of what waits; now, if nothing does. Monotonic milliseconds. */
  tookAt(now: number): number
  /** Is closed as a slow consumer: there is no room for what waits for it. */
  giveUp(): void
}

export class Lane {
  readonly key: string
  readonly subscription: Subscription
  readonly members: Member[] = []
  /** How many connections each user has here. */
  readonly users = new Map<string, number>()
  /** Where the next flush starts, so that no member is always last. */
  start = 0
  checkpointAt = Number.NEGATIVE_INFINITY
  /** Whether a checkpoint is due: changes or a heartbeat were sent since the last one. */
  unmarked = false
  /** What the batch part being routed has for this lane. */
  visibleChanges: VisibleChange[] = []
  ownUsers = new Set<string>()
  /** The derived values that it sees. */
  readonly latest = new LatestValues()

  #entries: LaneEntry[] = []
  /** Where each entry begins, in bytes since the beginning of the lane. */
  #starts: number[] = []
  #total = 0
  #base = 0
  #bytes = 0

  readonly #presence: Multimap<Lane>
  readonly #memory: LaneMemory

  /**
   * @param presence is kept up to date: the lanes that each user is in.
   * @param memory too: what all lanes hold.
   */
  constructor(subscription: Subscription, presence: Multimap<Lane>, memory: LaneMemory) {
    this.subscription = subscription
    this.#memory = memory
    this.#presence = presence
    this.key = subscriptionKey(subscription)
  }

  /** The position after the last entry. */
  get end(): number {
    return this.#base + this.#entries.length
  }

  get bytes(): number {
    return this.#bytes
  }

  /** The entry at a position; undefined at the end, null if it was dropped. */
  at(position: number): LaneEntry | null | undefined {
    return position < this.#base ? null : this.#entries[position - this.#base]
  }

  /** How much it holds from a position on. Bytes; 0 if that was dropped. */
  bytesAfter(position: number): number {
    return this.#total - (this.#starts[position - this.#base] ?? this.#total)
  }

  add(member: Member): void {
    member.index = this.members.push(member) - 1
    const count = this.users.get(member.user) ?? 0
    if (count === 0) this.#presence.add(member.user, this)
    this.users.set(member.user, count + 1)
  }

  remove(member: Member): void {
    const last = this.members.pop()
    if (last !== undefined && last !== member) {
      this.members[member.index] = last
      last.index = member.index
    }
    const left = (this.users.get(member.user) ?? 1) - 1
    if (left > 0) {
      this.users.set(member.user, left)
    } else {
      this.users.delete(member.user)
      this.#presence.delete(member.user, this)
    }
  }

  /** Adds an entry. Beyond the limit the oldest are dropped, and members that have not read them cannot go on. */
  append(entry: LaneEntry, limitBytes: number): void {
    this.#entries.push(entry)
    this.#memory.hold(entry)
    this.#starts.push(this.#total)
    this.#total += entry.bytes
    this.#bytes += entry.bytes
    while (this.#bytes > limitBytes && this.#entries.length > 1) this.#drop()
  }

  /** Drops what every member has read. */
  trim(): void {
    let oldest = this.end
    for (const member of this.members) if (member.position < oldest) oldest = member.position
    while (this.#base < oldest && this.#entries.length > 0) this.#drop()
  }

  /**
   * Makes the entry of one part of a batch out of `visibleChanges` and `ownUsers`, and clears them. Works in slices:
   * members may leave meanwhile, and new ones skip the batch.
   * @param after frames that follow, such as a checkpoint.
   * @param frames of the part.
   */
  async takeEntry(
    { batch, changes }: { batch: number; changes: readonly Change[] },
    after: readonly Buffer[],
    frames: PartFrames,
  ): Promise<LaneEntry> {
    const { visibleChanges, ownUsers } = this
    this.visibleChanges = []
    this.ownUsers = new Set()
    const shared = await frames.of(visibleChanges, after)
    let bytes = bytesOf(shared)
    let own: Map<string, readonly Buffer[]> | undefined
    for (const user of ownUsers) {
      const chunks = await frames.of(visibleChangesOf(changes, this.subscription, `user:${user}`), after)
      bytes += bytesOf(chunks)
      own ??= new Map()
      own.set(user, chunks)
    }
    return { batch, shared, own, bytes }
  }

  #drop(): void {
    const entry = this.#entries.shift()
    this.#starts.shift()
    if (entry !== undefined) this.#memory.release(entry)
    this.#bytes -= entry?.bytes ?? 0
    this.#base++
  }
}
