/**
 * A catch-up: one returning client on its way from its cursor to the present. What it misses comes from memory where the
 * buffer covers its position, else from the log. A position is a set of transactions, so that a cursor of another relay,
 * or one fresh from SQL and a little ahead of this feed, needs no special case.
 */

import { type Change, seqOf } from "../change/change.ts"
import { type Cursor, contains, cursorText, type Snapshot, union } from "../change/cursor.ts"
import type { Connection } from "../fanout/connection.ts"
import { checkpointFrame } from "../fanout/frames.ts"
import { type Subscription, subscriptionKey } from "../fanout/visibility.ts"
import type { Rest } from "../feed/log-pages.ts"
import type { Source } from "../feed/source.ts"
import type { Clock } from "../lib/clock.ts"
import type { SliceQueue } from "../lib/time-slice.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { Reason } from "../protocol/server-message.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { FrameCache, MissedFrames } from "./frame-cache.ts"
import type { LogReads } from "./log-reads.ts"
import type { Position } from "./position.ts"
import type { ReplayBuffer } from "./replay-buffer.ts"
import { type Joined, type Returning, subscriptionOf } from "./returning.ts"

export interface CatchUpDeps {
  position: Position
  buffer: ReplayBuffer
  logReads: LogReads
  frameCache: FrameCache
  /** Reads the log again where the cursor is ahead of the feed, or of a lineage that it does not know. */
  source: Pick<Source, "refresh">
  /** All replays wait here for their turn. */
  turns: SliceQueue
  metrics: Metrics
  clock: Pick<Clock, "now">
  /** The replay is over, and the connection takes its place among the live ones. */
  goLive(catchUp: CatchUp): void
}

/** A step from memory ends with the part that passes this many bytes, or milliseconds. */
const STEP_BYTES = 131_072
const STEP_MS = 2
/** How long a client whose cursor the feed has not reached waits for it. Milliseconds. */
const REFRESH_MS = 5_000

/** What a step has for the client, and the index at which the next begins. */
interface Step {
  readonly chunks: readonly Buffer[]
  readonly count: number
  readonly next: number
}

export class CatchUp {
  readonly connection: Connection
  readonly #deps: CatchUpDeps
  readonly #since: Cursor
  readonly #epoch: number
  /** Undefined once the client has its answer. */
  #answer: ((joined: Joined) => void) | undefined
  #subscription: Subscription
  #subscriptionKey: string
  /** What the client has: its cursor, and everything up to the last whole batch that was sent. */
  #has: Snapshot
  /** What is missing of the batch that it is in. */
  #rest: Rest | undefined
  #count = 0
  #from: "memory" | "log" = "memory"
  #over = false

  constructor({ connection, channels, since, answer }: Returning, deps: CatchUpDeps) {
    this.connection = connection
    this.#deps = deps
    this.#since = since
    this.#epoch = deps.position.epoch
    this.#answer = answer
    this.#has = since.snapshot
    this.#subscription = subscriptionOf(connection, channels)
    this.#subscriptionKey = subscriptionKey(this.#subscription)
  }

  get channels(): ReadonlySet<string> {
    return this.#subscription.channels
  }

  /** Takes channels away at once, and applies the connection's new rights. */
  narrow(channels: ReadonlySet<string>): void {
    this.#subscription = subscriptionOf(this.connection, channels)
    this.#subscriptionKey = subscriptionKey(this.#subscription)
  }

  /** Sends nothing more. */
  cancel(): void {
    this.#over = true
  }

  async run(): Promise<void> {
    const { turns, buffer } = this.#deps
    // A client that asks again and again without reading gets the next answer when it has read the last.
    if (!this.connection.ready) await this.connection.whenReady()
    await turns.next(this.connection.user)
    if (this.#gone || !(await this.#ofThisLog()) || !(await this.#caughtUp(this.#since.snapshot))) return
    for (;;) {
      const memory = this.#rest === undefined && buffer.covers(this.#has)
      if (memory ? await this.#fromMemory() : await this.#fromLog()) return
      await turns.next(this.connection.user)
      if (this.#gone) return
    }
  }

  /** Nothing can be promised: the client is live from now on and loads its state. */
  refuse(reason: Reason): void {
    const { position, metrics, goLive } = this.#deps
    if (this.#gone || position.head === undefined) return
    metrics.resumes.inc({ result: reason })
    this.#reply({ cursor: cursorText(position.head), recovered: false, replayed: 0, reason })
    goLive(this)
  }

  /** Closes the connection: the client can try it again. */
  interrupt(): void {
    if (!this.#gone) this.#close("interrupted", "the replay was interrupted")
  }

  #close(result: "interrupted" | "refused", reason: string): void {
    this.#deps.metrics.resumes.inc({ result })
    this.connection.close(CloseCode.tryAgain, reason)
  }

  get #gone(): boolean {
    return this.#over || this.#deps.position.epoch !== this.#epoch
  }

  /** Walks the buffer. @returns whether the replay is over; otherwise memory does not reach far enough. */
  async #fromMemory(): Promise<boolean> {
    const { position, buffer, turns } = this.#deps
    for (let index = buffer.first(); ; ) {
      const step = this.#step(index)
      index = step.next
      const { head, inBatch } = position
      if (head === undefined) return true
      const noMore = buffer.at(index) === undefined
      const atEnd = noMore && !inBatch && this.#rest === undefined
      if (atEnd && contains(head.snapshot, this.#has)) {
        this.#finish(head, step)
        return true
      }
      this.#send(step)
      if (step.count > 0) this.#sendPosition()
      if (atEnd && !(await this.#caughtUp(this.#has))) return true
      if (noMore && !atEnd) await position.advanced()
      if (!this.connection.ready) await this.connection.whenReady()
      await turns.next(this.connection.user)
      if (this.#gone) return true
      if (!this.#inMemory(index)) return false
    }
  }

  /** Takes parts from memory, from an index on. */
  #step(from: number): Step {
    const { buffer, clock } = this.#deps
    const chunks: Buffer[] = []
    const end = clock.now() + STEP_MS
    let bytes = 0
    let count = 0
    let next = from
    for (let part = buffer.at(next); part !== undefined && part !== null; part = buffer.at(++next)) {
      if (bytes >= STEP_BYTES || clock.now() > end) break
      if (this.#rest === undefined && contains(this.#has, part.cursor.snapshot)) continue
      const missed = this.#missed(part.changes, part.final)
      chunks.push(...missed.chunks)
      bytes += missed.bytes
      count += missed.count
      if (part.final) this.#has = union(this.#has, part.cursor.snapshot)
      const last = part.changes.at(-1)
      const after = last === undefined ? (this.#rest?.after ?? "0") : String(seqOf(last))
      this.#rest = part.final ? undefined : { until: part.cursor.snapshot, after }
    }
    return { chunks, count, next }
  }

  /** Whether what follows is still in memory, or will be. */
  #inMemory(index: number): boolean {
    const { buffer, position } = this.#deps
    if (buffer.at(index) === null) return false
    if (this.#rest === undefined) return buffer.covers(this.#has)
    return index !== buffer.end() || position.inBatch
  }

  /** Reads the log once. @returns whether the replay is over. */
  async #fromLog(): Promise<boolean> {
    const { connection } = this
    this.#from = "log"
    const outcome = await this.#deps.logReads.read({
      user: connection.user,
      since: this.#has,
      rest: this.#rest,
      take: ({ changes, final }) => {
        if (!this.#gone) this.#send(this.#missed(changes, final))
      },
      ready: () => connection.ready,
      whenReady: () => connection.whenReady(),
      gone: () => this.#gone,
    })
    if (this.#gone) return true
    switch (outcome.kind) {
      case "done":
        this.#has = union(this.#has, outcome.until)
        this.#rest = undefined
        this.#sendPosition()
        return false
      case "cut":
        this.#rest = outcome.rest
        await connection.whenReady()
        return this.#gone
      case "too_old":
        if (this.#answer !== undefined) this.refuse("too_old")
        else connection.close(CloseCode.cannotContinue, "the log was rotated")
        return true
      case "refused":
        this.#close("refused", "too many replays of this user from far back")
        return true
      case "failed":
        this.interrupt()
        return true
    }
  }

  /** Waits until the feed has all of a position. @returns false if it has not and the replay has ended. */
  #caughtUp(snapshot: Snapshot): Promise<boolean> {
    const { position } = this.#deps
    return this.#refreshed(
      "ahead",
      () => position.head !== undefined && contains(position.head.snapshot, snapshot),
    )
  }

  /** Whether the cursor is of a lineage that holds: the feed may have to look whether there is a newer one. */
  #ofThisLog(): Promise<boolean> {
    return this.#refreshed("lineage", () => this.#deps.position.lineages.has(this.#since.lineage))
  }

  /** Whether something holds, if need be after a read of the log. @returns false if it does not and the replay has ended. */
  async #refreshed(reason: Reason, holds: () => boolean): Promise<boolean> {
    if (holds()) return true
    const fresh = await this.#deps.source.refresh(REFRESH_MS)
    if (this.#gone) return false
    if (holds()) return true
    // What was answered cannot be taken back.
    if (fresh && this.#answer !== undefined) this.refuse(reason)
    else this.interrupt()
    return false
  }

  #missed(changes: readonly Change[], closed: boolean): MissedFrames {
    return this.#deps.frameCache.of(changes, closed, {
      has: this.#has,
      subscription: this.#subscription,
      key: this.#subscriptionKey,
      user: this.connection.user,
    })
  }

  #send({ chunks, count }: Pick<MissedFrames, "chunks" | "count">): void {
    this.#reply({ cursor: cursorText(this.#since), recovered: true, replayed: null, reason: null })
    this.#count += count
    this.#deps.metrics.replayed.inc({ source: this.#from }, count)
    this.connection.push(chunks)
  }

  /** Sends how far the replay has come, so that a client that is cut off again and again need not begin again. */
  #sendPosition(): void {
    const { lineage } = this.#deps.position
    if (this.#answer !== undefined || this.#rest !== undefined || lineage === undefined) return
    this.connection.push([checkpointFrame({ lineage, snapshot: this.#has })])
  }

  /** Everything was sent up to the feed's position, which does not move meanwhile. */
  #finish(head: Cursor, { chunks, count }: Step): void {
    const { metrics, goLive } = this.#deps
    const replayed = this.#count + count
    this.#reply({ cursor: cursorText(this.#since), recovered: true, replayed, reason: null })
    metrics.resumes.inc({ result: this.#from })
    metrics.replayed.inc({ source: this.#from }, count)
    this.connection.push([...chunks, checkpointFrame(head, replayed)])
    goLive(this)
  }

  #reply(joined: Joined): void {
    this.#answer?.(joined)
    this.#answer = undefined
  }
}
