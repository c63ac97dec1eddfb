/**
 * The feed: the changelog as ordered batches with their cursors. A bell makes it read at once, a slow poll is the
 * floor, and under load it polls by itself so that writers need not ring.
 */

import { setTimeout as sleep } from "node:timers/promises"
import type { Change } from "../change/change.ts"
import { type Cursor, contains, type Snapshot } from "../change/cursor.ts"
import { backoff } from "../lib/backoff.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { BatchPart, FeedConsumer } from "./batch.ts"
import { type BellReport, createBell } from "./bell.ts"
import type { Changelog } from "./changelog.ts"
import type { Head, Session } from "./log-session.ts"

export type FeedState =
  | { kind: "down"; since: number; attempts: number; error: string | undefined }
  | { kind: "up"; since: number; cursor: Cursor }

/** Why a feed cannot go on from where it was. */
export type ResetReason = "lineage" | "horizon"

export interface Feed {
  start(): void
  /** A bell of this transaction rang. */
  heard(xid: string): void
  /** Something may be in the log, and writers may not have rung. */
  wake(): void
  state(): FeedState
  /** Resolves after a whole read that began later; false if there is none within the time, in milliseconds. */
  refresh(timeoutMs: number): Promise<boolean>
  /** Everything committed longer ago than this was delivered; milliseconds. */
  lagMs(): number
  /** At most so many changes of the read in progress are still to be delivered; 0 between two. */
  backlog(): number
  bell(): BellReport
  stop(): Promise<void>
}

export interface FeedDeps {
  changelog: Changelog
  consumer: FeedConsumer
  log: Log
  metrics: Metrics
  /** Canaries were read. */
  onCanaries(canaries: readonly string[]): void
  bell: "adaptive" | "always" | "off"
  /** As RelayDeps has it. */
  floorMs?: number | undefined
}

/** More changes than this are read in pages of this many. */
const PAGE = 1_000

export function createFeed({
  changelog,
  consumer,
  log,
  metrics,
  onCanaries,
  bell: setting,
  floorMs,
}: FeedDeps): Feed {
  const closing = new AbortController()
  const startedAt = performance.now()
  const bell = createBell({ setting, metrics, floorMs })
  let state: FeedState = { kind: "down", since: startedAt, attempts: 0, error: undefined }
  let cursor: Cursor | undefined
  let readUpTo = startedAt
  let backlog = 0
  let running: Promise<void> | undefined
  let pending = false
  let interrupt: (() => void) | undefined
  /** Those who wait for a read that begins after they asked. */
  const asking = new Set<() => void>()

  function readSoon(): void {
    pending = true
    interrupt?.()
  }

  /** Waits for a wake-up, a stop or the time to poll. @returns why it reads. */
  async function pause(): Promise<"bell" | "poll"> {
    if (!pending && !closing.signal.aborted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, bell.pollMs(consumer.hasClients()))
        interrupt = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      interrupt = undefined
    }
    const why = pending ? "bell" : "poll"
    pending = false
    return why
  }

  async function deliver(
    { changes, revocations }: Pick<BatchPart, "changes" | "revocations">,
    snapshot: Snapshot,
    lineage: string,
    first: boolean,
    final: boolean,
  ): Promise<void> {
    const stop = metrics.fanout.startTimer()
    for (const { table, op, count } of runsOf(changes)) metrics.events.inc({ table, op }, count)
    if (revocations.length > 0) metrics.events.inc({ table: "", op: "revocation" }, revocations.length)
    await consumer.deliver({ changes, revocations, cursor: { lineage, snapshot }, first, final })
    stop()
  }

  /** One read: everything since the cursor, delivered. @returns false if the log no longer holds what is missing. */
  async function advance(session: Session, since: Snapshot): Promise<boolean> {
    const startedReading = performance.now()
    const stop = metrics.read.startTimer()
    const page = await session.read(since, PAGE)
    stop()
    if (!contains(since, page.head.horizon)) return false
    let head: Head = page.head
    let count = page.changes.length
    const transactions = new Set<string>()
    if (!page.cut) {
      for (const change of page.changes) transactions.add(change.xid)
      if (count > 0 || since.text !== head.snapshot.text)
        await deliver(page, head.snapshot, session.lineage, true, true)
      onCanaries(page.canaries)
    } else {
      count = 0
      let first = true
      for await (const part of session.pages(since, PAGE)) {
        head = part.head
        if (!contains(since, head.horizon)) return false
        for (const change of part.changes) transactions.add(change.xid)
        backlog = Number(head.newest - BigInt(part.changes[0]?.id ?? head.newest)) + 1
        await deliver(part, head.snapshot, session.lineage, first, part.final)
        onCanaries(part.canaries)
        first = false
        count += part.changes.length
        // Checkpoints cover it from now on: it must not be read again, even if the session ends before the next step.
        if (part.final) cursor = { lineage: session.lineage, snapshot: head.snapshot }
      }
    }
    backlog = 0
    if (count > 0) metrics.batch.observe(count)
    cursor = { lineage: session.lineage, snapshot: head.snapshot }
    state = { kind: "up", since: state.since, cursor }
    readUpTo = startedReading
    await bell.afterRead(session, {
      snapshot: head.snapshot,
      leaseMs: head.leaseMs,
      transactions,
    })
    return true
  }

  /** Finds where to go on after connecting; undefined where nothing can be promised about what was missed. */
  function resume(session: Session): Cursor | undefined {
    if (cursor === undefined) return undefined
    if (session.lineages.has(cursor.lineage)) return { lineage: session.lineage, snapshot: cursor.snapshot }
    reset("lineage")
    return undefined
  }

  function reset(reason: ResetReason): void {
    cursor = undefined
    pending = true
    state = {
      kind: "down",
      since: performance.now(),
      attempts: 0,
      error: `no position to go on from (${reason})`,
    }
    metrics.resets.inc({ reason })
    log.error(
      { event: "feed_reset", reason },
      "changes may have been missed: every client is told to load its state again",
    )
    consumer.reset()
  }

  /**
   * A fresh position. After a pause of the capture there is none until the transactions that were open when it ended
   * are over: what they wrote is in no log.
   */
  async function begin(session: Session): Promise<Cursor | undefined> {
    const { head } = await session.read(await session.now(), 0)
    if (!contains(head.snapshot, head.horizon)) return undefined
    const fresh = { lineage: session.lineage, snapshot: head.snapshot }
    // Asked later than the position, so that there is no gap: what came in between comes again, and the last word counts.
    consumer.begin(fresh, await session.revocations())
    return fresh
  }

  async function session(): Promise<never> {
    const open = await changelog.open()
    try {
      cursor = resume(open)
      consumer.meet(open.lineage, open.lineages)
      const since = performance.now()
      bell.doubt()
      pending = true
      while (!closing.signal.aborted) {
        const why = await pause()
        metrics.reads.inc({ why })
        if (why === "poll") bell.polled()
        if (closing.signal.aborted) break
        if (cursor === undefined) {
          cursor = await begin(open)
          if (cursor === undefined) continue
        }
        if (state.kind === "down") {
          state = { kind: "up", since, cursor }
          log.info({ event: "feed_up", lineage: open.lineage }, "reading the changelog")
        }
        const asked = [...asking]
        if (await advance(open, cursor.snapshot)) for (const answer of asked) answer()
        else reset("horizon")
      }
      throw new Error("stopping")
    } finally {
      open.close()
    }
  }

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        await session()
      } catch (error) {
        if (closing.signal.aborted) return
        consumer.lost()
        backlog = 0
        const wasUp = state.kind === "up"
        if (wasUp) metrics.feedLost.inc()
        const attempts = state.kind === "up" ? 0 : state.attempts + 1
        const message = (error as Error).message
        state = { kind: "down", since: wasUp ? performance.now() : state.since, attempts, error: message }
        const delay = backoff(attempts)
        log.warn(
          { event: "feed_down", attempt: attempts, retry_in_ms: Math.round(delay), error: message },
          "cannot read the changelog",
        )
        await sleep(delay, undefined, { signal: closing.signal }).catch(() => {})
      }
    }
  }

  return {
    start() {
      running ??= run()
    },
    heard(xid) {
      bell.heard(xid)
      readSoon()
    },
    wake() {
      bell.doubt()
      readSoon()
    },
    refresh(timeoutMs) {
      return new Promise((resolve) => {
        const settle = (fresh: boolean) => {
          clearTimeout(timer)
          asking.delete(answer)
          resolve(fresh)
        }
        const answer = () => settle(true)
        const timer = setTimeout(settle, timeoutMs, false)
        asking.add(answer)
        readSoon()
      })
    },
    state: () => state,
    lagMs: () => performance.now() - readUpTo,
    backlog: () => backlog,
    bell: bell.report,
    async stop() {
      closing.abort()
      interrupt?.()
      await running
    },
  }
}

/** How many changes of one table and operation follow one another, again and again. */
function runsOf(changes: readonly Change[]): Array<{ table: string; op: string; count: number }> {
  const runs: Array<{ table: string; op: string; count: number }> = []
  for (const change of changes) {
    const { op } = change
    const table = change.kind === "message" ? "" : change.table
    const run = runs.at(-1)
    if (run?.table === table && run.op === op) run.count++
    else runs.push({ table, op, count: 1 })
  }
  return runs
}
