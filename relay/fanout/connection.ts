/** A connection: who the client is, where it is in its lane, and how much its socket has been handed. */

import { randomUUID } from "node:crypto"
import type { Identity } from "../access/auth.ts"
import { CloseCode } from "../protocol/close-code.ts"
import { encodeMessage } from "../protocol/encode.ts"
import type { Filter } from "../protocol/filter.ts"
import { frameText } from "../protocol/frame.ts"
import type { ServerMessage } from "../protocol/server-message.ts"
import type { Lane, Member } from "./lane.ts"
import type { Wire } from "./wire.ts"

/** What a socket is handed at once. The rest waits in the lane, which holds it once for all members. Bytes. */
const HANDED_BYTES = 131_072
/** How much of a replay may be owed before the replay waits. Bytes. */
const AHEAD_BYTES = 1_048_576
/** How many frames may be owed beside the lane: answers, and what was left over from the lane before. */
const OWED_FRAMES = 4_096

export interface ConnectionDeps {
  wire: Wire
  /** Of the client, as far as proxies are trusted. */
  address: string
  /** Called before the close frame is sent. The connection takes no further part. */
  onClosing(connection: Connection, code: CloseCode): void
}

export class Connection implements Member {
  readonly id = randomUUID()
  /** Times are monotonic milliseconds. */
  connectedAt = performance.now()
  /** From 0 to 1, to spread what must not happen to all connections at once. */
  readonly chance = Math.random()
  identity: Identity | undefined
  /** Whose token was good, from before it is admitted: its frames count for that user. */
  claimant = ""
  /** What it wants of its channels; undefined: everything. */
  filter: Filter | undefined
  lane: Lane | undefined
  position = 0
  index = 0
  /** Entries of this batch are skipped: it was in progress when the connection took its cursor. */
  startBatch = 0
  /** When the client last sent something. */
  lastHeardAt = performance.now()
  /** When it was last asked for a sign of life because its user has no room. */
  askedAt = Number.NEGATIVE_INFINITY
  /** Messages that wait until it is live. */
  deferred = 0
  /** Error messages sent. */
  faults = 0
  /** When its bucket of frames is whole again. */
  framesWholeAt = 0
  /** Since when the socket has taken nothing although something waits; 0 while it takes. */
  stuckAt = 0
  /** The code and reason with which the relay closes it, once it does. */
  ending: { readonly code: CloseCode; readonly reason: string } | undefined
  readonly address: string

  readonly #wire: Wire
  readonly #onClosing: ConnectionDeps["onClosing"]
  /** The next chunk of the current entry. */
  #chunk = 0
  /** What was still owed when the connection changed its lane. */
  #owed: Buffer[] | undefined
  #owedBytes = 0
  #waiting: Array<() => void> | undefined
  /** The version of the lane's latest values up to which it has them. */
  #shown = 0
  /** What the socket had sent when it was last looked at, in bytes, and whether more waited then. */
  #sent = 0
  #waited = false
  /** The same for who asks between two pages, and when it had last taken something then. */
  #taken = 0
  #tookAt = Number.NEGATIVE_INFINITY

  constructor({ wire, address, onClosing }: ConnectionDeps) {
    this.address = address
    this.#wire = wire
    this.#onClosing = onClosing
  }

  /** The user, once authenticated. */
  get user(): string {
    return this.identity?.user ?? ""
  }

  get closing(): boolean {
    return this.ending !== undefined
  }

  /** Joins a lane at its end. What the old lane still owed stays owed. */
  enter(lane: Lane, batch: number): void {
    this.depart()
    this.lane = lane
    this.position = lane.end
    this.#chunk = 0
    this.#shown = 0
    this.startBatch = batch
    lane.add(this)
  }

  /** Leaves the lane; what it still owed stays owed. */
  depart(): void {
    for (let chunk = this.#nextOfLane(); chunk !== undefined; chunk = this.#nextOfLane()) this.#owe(chunk)
    this.lane?.remove(this)
    this.lane = undefined
  }

  /** Takes no further part. What it was owed is dropped. */
  leave(): void {
    this.lane?.remove(this)
    this.lane = undefined
    this.#owed = undefined
    this.#owedBytes = 0
    this.#wake()
  }

  /** Sends chunks of whole frames, after everything that it is owed. */
  push(chunks: readonly Buffer[]): void {
    for (const chunk of chunks) this.#owe(chunk)
    this.pump()
  }

  /** Whether it may be owed more. */
  get ready(): boolean {
    return this.#owedBytes < AHEAD_BYTES
  }

  /** Resolves when the socket has been handed all that it is owed, or the connection ends. */
  whenReady(): Promise<void> {
    if (this.#owed === undefined) return Promise.resolve()
    return new Promise((resolve) => {
      this.#waiting ??= []
      this.#waiting.push(resolve)
    })
  }

  /** Sends a message after everything that it is owed. A client that asks without reading the answers is closed. */
  send(message: ServerMessage): void {
    const frame = frameText(encodeMessage(message))
    if (this.#owed === undefined && !this.#wire.full) return this.#wire.write(frame)
    if (this.#owe(frame) > OWED_FRAMES) this.close(CloseCode.slowConsumer, "slow consumer")
  }

  /** Writes what is owed in one go, unless the socket is full. Called at each flush and when the socket has drained. */
  pump(): void {
    if (this.#wire.full) return
    const chunk = this.#next()
    if (chunk !== undefined) {
      const following = this.#next()
      if (following === undefined) this.#wire.write(chunk)
      else this.#writeAll(chunk, following)
      if (this.#owed === undefined) this.#wake()
    }
    this.#showLatest()
  }

  /** Latest values are sent when nothing else is owed. One that is overtaken until then is never sent. */
  #showLatest(): void {
    const latest = this.lane?.latest
    if (latest === undefined || latest.newest <= this.#shown) return
    if (this.#owed !== undefined || this.lane?.at(this.position) !== undefined) return
    this.#wire.cork()
    for (const { version, frame } of latest.since(this.#shown)) {
      if (this.#wire.full) break
      this.#wire.write(frame)
      this.#shown = version
    }
    this.#wire.uncork()
  }

  #writeAll(first: Buffer, second: Buffer): void {
    this.#wire.cork()
    this.#wire.write(first)
    let handed = first.length
    for (let chunk: Buffer | undefined = second; chunk !== undefined; ) {
      this.#wire.write(chunk)
      handed += chunk.length
      chunk = handed < HANDED_BYTES ? this.#next() : undefined
    }
    this.#wire.uncork()
  }

  /** Whether the lane has dropped what it should get next. */
  get overrun(): boolean {
    return this.lane?.at(this.position) === null
  }

  /** Checks now and then whether a waiting socket takes anything. @returns for how long it has not, in milliseconds. */
  stuckFor(now: number): number {
    const { queued, sent } = this.#wire
    const taken = sent !== this.#sent
    // A client that takes what waits is alive, though its pong is queued behind all of that.
    if (taken && this.#waited) this.lastHeardAt = now
    if (queued === 0 || taken) this.stuckAt = now
    this.#waited = queued > 0
    this.#sent = sent
    return now - this.stuckAt
  }

  giveUp(): void {
    this.close(CloseCode.slowConsumer, "slow consumer")
  }

  tookAt(now: number): number {
    const { queued, sent } = this.#wire
    if (queued === 0 || sent !== this.#taken) this.#tookAt = now
    this.#taken = sent
    return this.#tookAt
  }

  /** Leaves out time in which the relay itself did not run. Milliseconds. */
  excuse(ms: number): void {
    this.connectedAt += ms
    this.lastHeardAt += ms
    this.stuckAt += ms
  }

  get open(): boolean {
    return this.#wire.open
  }

  /** What its socket was handed and has not sent. Bytes. */
  get queued(): number {
    return this.#wire.queued
  }

  close(code: CloseCode, reason: string): void {
    if (this.closing) return
    this.ending = { code, reason }
    this.#onClosing(this, code)
    this.#wire.close(code, reason)
  }

  terminate(): void {
    this.#wire.terminate()
  }

  /** @returns how many frames and chunks it is owed. */
  #owe(chunk: Buffer): number {
    this.#owed ??= []
    this.#owedBytes += chunk.length
    return this.#owed.push(chunk)
  }

  #wake(): void {
    const woken = this.#waiting
    this.#waiting = undefined
    for (const resolve of woken ?? []) resolve()
  }

  #next(): Buffer | undefined {
    const chunk = this.#owed?.shift()
    if (chunk === undefined) return this.#nextOfLane()
    if (this.#owed?.length === 0) this.#owed = undefined
    this.#owedBytes -= chunk.length
    return chunk
  }

  #nextOfLane(): Buffer | undefined {
    for (;;) {
      const entry = this.lane?.at(this.position)
      if (entry === undefined || entry === null) return undefined
      const chunks = entry.own?.get(this.user) ?? entry.shared
      const chunk = entry.batch > this.startBatch ? chunks[this.#chunk] : undefined
      if (chunk !== undefined) {
        this.#chunk++
        if (this.#chunk === chunks.length) this.#advance()
        return chunk
      }
      this.#advance()
    }
  }

  #advance(): void {
    this.position++
    this.#chunk = 0
  }
}
