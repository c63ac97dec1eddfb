/** One client: who it is, where it stands in its lane, and how much its socket has been handed. */

import { randomUUID } from "node:crypto"
import type { Identity } from "./auth.ts"
import type { Lane, Member } from "./lane.ts"
import type { ServerMessage } from "./messages.ts"
import { CloseCode, encodeMessage } from "./protocol.ts"
import { frameText, type Wire } from "./wire.ts"

/** What may wait in the socket. The rest waits in the lane, where it lies once for all. */
const HANDED_BYTES = 262_144
/** How much of a replay may be owed before it waits. */
const AHEAD_BYTES = 1_048_576
/** How much may be owed beside the lane: answers, and what a lane that was left still had. */
const OWED_FRAMES = 4_096
/** A close frame cannot pass a stuffed socket; after this long it is cut. Milliseconds. */
const CLOSE_GRACE_MS = 1_000

export interface ConnectionDeps {
  wire: Wire
  /** Told before the close frame is sent: the connection takes no further part. */
  onClosing(code: CloseCode): void
}

export class Connection implements Member {
  readonly id = randomUUID()
  /** Times are of the clock that is never set, in milliseconds. */
  readonly connectedAt = performance.now()
  identity: Identity | undefined
  lane: Lane | undefined
  position = 0
  index = 0
  /** Entries of this batch are skipped: it was in progress when the connection took its cursor. */
  startBatch = 0
  /** When the client was last heard. */
  heardAt = performance.now()
  /** Messages that wait until it is live. */
  deferred = 0
  /** Error messages sent. */
  faults = 0
  /** Since when the socket has not taken anything although something waits; 0 while it does. */
  stuckAt = 0
  closingSince = 0

  readonly #wire: Wire
  readonly #onClosing: (code: CloseCode) => void
  /** The next chunk of the current entry. */
  #chunk = 0
  /** What was still owed when the connection changed its lane. */
  #owed: Buffer[] = []
  #owedBytes = 0
  #waiting: Array<() => void> = []
  #mark = ""

  constructor({ wire, onClosing }: ConnectionDeps) {
    this.#wire = wire
    this.#onClosing = onClosing
  }

  /** The user, once authenticated. */
  get user(): string {
    return this.identity?.user ?? ""
  }

  /** Joins a lane at its end. What the old lane still owed stays owed. */
  enter(lane: Lane, batch: number): void {
    this.depart()
    this.lane = lane
    this.position = lane.end
    this.#chunk = 0
    this.startBatch = batch
    lane.add(this)
  }

  /** Leaves the lane; what it still owed stays owed. */
  depart(): void {
    for (let chunk = this.#nextOfLane(); chunk !== undefined; chunk = this.#nextOfLane()) this.#owe(chunk)
    this.lane?.remove(this)
    this.lane = undefined
  }

  /** Takes no further part: what it was owed is void. */
  leave(): void {
    this.lane?.remove(this)
    this.lane = undefined
    this.#owed = []
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
    if (this.#owed.length === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
    })
  }

  /** Sends a message of its own, after everything that it is owed. Who asks without reading the answers is closed. */
  send(message: ServerMessage): void {
    const frame = frameText(encodeMessage(message))
    if (this.#owed.length === 0 && this.#wire.queued < HANDED_BYTES) return this.#wire.write(frame)
    this.#owe(frame)
    if (this.#owed.length > OWED_FRAMES) this.close(CloseCode.slowConsumer, "slow consumer")
  }

  /** Writes what is owed, as one write, until the socket holds enough. Called each turn and when the socket drains. */
  pump(): void {
    let corked = false
    while (this.#wire.queued < HANDED_BYTES) {
      const chunk = this.#next()
      if (chunk === undefined) break
      if (!corked) {
        this.#wire.cork()
        corked = true
      }
      this.#wire.write(chunk)
    }
    if (corked) this.#wire.uncork()
    if (this.#owed.length === 0) this.#wake()
  }

  /** Whether it fell off its lane's ring. */
  get overrun(): boolean {
    return this.lane?.at(this.position) === null
  }

  /** Notes, once a while, whether a waiting socket takes anything. @returns how long it has not, in milliseconds. */
  stuckFor(now: number): number {
    const mark = `${this.position}:${this.#chunk}:${this.#wire.untaken}`
    if (this.#wire.queued === 0 || mark !== this.#mark) this.stuckAt = now
    this.#mark = mark
    return now - this.stuckAt
  }

  get open(): boolean {
    return this.#wire.open
  }

  close(code: CloseCode, reason: string): void {
    if (this.closingSince !== 0) return
    this.closingSince = performance.now()
    this.#onClosing(code)
    this.#wire.close(code, reason)
  }

  /** Cuts a connection whose close was not answered. */
  reap(): void {
    if (this.closingSince !== 0 && performance.now() - this.closingSince > CLOSE_GRACE_MS)
      this.#wire.terminate()
  }

  terminate(): void {
    this.#wire.terminate()
  }

  #owe(chunk: Buffer): void {
    this.#owed.push(chunk)
    this.#owedBytes += chunk.length
  }

  #wake(): void {
    const woken = this.#waiting
    this.#waiting = []
    for (const resolve of woken) resolve()
  }

  #next(): Buffer | undefined {
    const chunk = this.#owed.shift()
    if (chunk === undefined) return this.#nextOfLane()
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
