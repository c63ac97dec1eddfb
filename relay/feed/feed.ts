/**
 * The feed: the changelog as ordered batches with their cursors. It reads as soon as a bell rings, and now and then in
 * any case. Under load it polls, so that writers need not ring.
 */

import { type Cursor, contains } from "../change/cursor.ts"
import { type Clock, systemClock } from "../lib/clock.ts"
import { type Loss, type SessionState, Supervisor } from "../lib/supervise.ts"
import { Wakeup } from "../lib/wakeup.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { FeedConsumer } from "./batch.ts"
import { type Bell, type BellReport, createBell } from "./bell.ts"
import type { Changelog } from "./changelog.ts"
import type { Session } from "./log-session.ts"
import { Reader, type ReaderDeps } from "./reader.ts"
import { Refreshes } from "./refreshes.ts"

export type FeedState = SessionState<{ cursor: Cursor }>

/** Why a feed cannot go on from where it was. */
type ResetReason = "lineage" | "horizon"

export interface FeedDeps {
  changelog: Pick<Changelog, "open">
  consumer: FeedConsumer
  log: Log
  metrics: Metrics
  onCanaries: ReaderDeps["onCanaries"]
  bell: "adaptive" | "always" | "off"
  /** How often to read where no bell rings and no lease is in force, in milliseconds; 1,000 by default. */
  floorMs?: number | undefined
  clock?: Clock
}

export class Feed {
  readonly #deps: FeedDeps
  readonly #clock: Clock
  readonly #bell: Bell
  readonly #wakeup: Wakeup
  readonly #refreshes: Refreshes
  readonly #reader: Reader
  readonly #supervisor: Supervisor<{ cursor: Cursor }>
  /** Where to read on; undefined where nothing can be promised about what was missed. */
  #cursor: Cursor | undefined
  /** Everything committed before this time was delivered. */
  #readUpTo: number

  constructor(deps: FeedDeps) {
    const { clock = systemClock, metrics } = deps
    this.#deps = deps
    this.#clock = clock
    this.#bell = createBell({ setting: deps.bell, metrics, floorMs: deps.floorMs, now: clock.now })
    this.#wakeup = new Wakeup(clock)
    this.#refreshes = new Refreshes(this.#wakeup, clock)
    this.#reader = new Reader(deps)
    this.#supervisor = new Supervisor({
      session: (signal) => this.#session(signal),
      onLost: (loss) => this.#lost(loss),
      clock,
    })
    this.#readUpTo = clock.now()
  }

  get state(): FeedState {
    return this.#supervisor.state
  }

  /** Everything committed longer ago than this was delivered; milliseconds. */
  get lagMs(): number {
    return this.#clock.now() - this.#readUpTo
  }

  /** At most so many changes of the read in progress are still to be delivered; 0 between two. */
  get backlog(): number {
    return this.#reader.backlog
  }

  get bell(): BellReport {
    return this.#bell.report()
  }

  start(): void {
    this.#supervisor.start()
  }

  /** A bell of this transaction rang. */
  rang(xid: string): void {
    this.#bell.rang(xid)
    this.#wakeup.wake()
  }

  /** Something may be in the log, and writers may not have rung. */
  recheck(): void {
    this.#bell.recheck()
    this.#wakeup.wake()
  }

  /** Resolves after a whole read that began later; false if there is none within the time, in milliseconds. */
  refresh(timeoutMs: number): Promise<boolean> {
    return this.#refreshes.request(timeoutMs)
  }

  async stop(): Promise<void> {
    const stopped = this.#supervisor.stop()
    this.#wakeup.wake()
    await stopped
  }

  async #session(signal: AbortSignal): Promise<void> {
    const session = await this.#deps.changelog.open()
    try {
      this.#adopt(session)
      for (;;) {
        const rang = await this.#wakeup.wait(this.#bell.pollMs(this.#deps.consumer.hasClients()))
        if (signal.aborted) return
        this.#deps.metrics.reads.inc({ why: rang ? "bell" : "poll" })
        if (!rang) this.#bell.polled()
        this.#cursor ??= await this.#begin(session)
        if (this.#cursor !== undefined) await this.#advance(session, this.#cursor)
      }
    } finally {
      session.close()
    }
  }

  /** Goes on with this session where the last one ended, if its log still knows that position. */
  #adopt(session: Session): void {
    const { lineage, lineages } = session
    if (this.#cursor !== undefined) {
      if (lineages.has(this.#cursor.lineage)) this.#cursor = { lineage, snapshot: this.#cursor.snapshot }
      else this.#reset("lineage")
    }
    this.#deps.consumer.adopt(lineage, lineages)
    this.recheck()
  }

  /**
   * Finds a fresh position. After a pause of the capture there is none until the transactions that were open when it
   * ended are over: what they wrote is in no log.
   */
  async #begin(session: Session): Promise<Cursor | undefined> {
    const { head } = await session.read(await session.now(), 0)
    if (!contains(head.snapshot, head.horizon)) return undefined
    const cursor = { lineage: session.lineage, snapshot: head.snapshot }
    // Read after the position was taken, so that none is missed: one written in between comes again in the first batch.
    this.#deps.consumer.begin(cursor, await session.revocations())
    return cursor
  }

  /** One read, and what follows from it. */
  async #advance(session: Session, cursor: Cursor): Promise<void> {
    const answer = this.#refreshes.begin()
    const beganAt = this.#clock.now()
    const result = await this.#reader.read(session, cursor.snapshot, (snapshot) => {
      this.#cursor = { lineage: session.lineage, snapshot }
    })
    if (result === undefined) return this.#reset("horizon")
    // Only now, so that a read which fails again and again is tried less and less often.
    if (this.#supervisor.state.kind === "down")
      this.#deps.log.info({ event: "feed_up", lineage: session.lineage }, "reading the changelog")
    this.#supervisor.up({ cursor: { lineage: session.lineage, snapshot: result.snapshot } })
    this.#readUpTo = beganAt
    await this.#bell.afterRead(session, result)
    answer()
  }

  #reset(reason: ResetReason): void {
    this.#cursor = undefined
    this.#wakeup.wake()
    this.#supervisor.down(`no position to go on from (${reason})`)
    this.#deps.metrics.resets.inc({ reason })
    this.#deps.log.error(
      { event: "feed_reset", reason },
      "changes may have been missed: every client is told to load its state again",
    )
    this.#deps.consumer.reset()
  }

  #lost({ wasUp, attempts, retryMs, error }: Loss): void {
    this.#deps.consumer.lost()
    if (wasUp) this.#deps.metrics.feedLost.inc()
    this.#deps.log.warn(
      { event: "feed_down", attempt: attempts, retry_in_ms: Math.round(retryMs), error },
      "cannot read the changelog",
    )
  }
}
