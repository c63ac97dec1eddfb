/**
 * Log reads: what returning clients miss, read beside the feed's own session. Clients that are about equally far back
 * share a read, so that thousands that return at once cost the database a handful of reads. How much lies after a
 * position nobody knows who sees only the position, and anybody can make one up. So each is first read for by a short
 * read, which is bounded; only where there is more does a long read follow, and these never hold up the short ones.
 */

import { setTimeout as sleep } from "node:timers/promises"
import { contains, type Snapshot } from "../change/cursor.ts"
import type { Changelog } from "../feed/changelog.ts"
import { isTimeout } from "../feed/log-connection.ts"
import type { Rest } from "../feed/log-pages.ts"
import type { Session } from "../feed/log-session.ts"
import { reasonOf } from "../lib/refusal.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { KeptPages } from "./kept-pages.ts"
import type { Position } from "./position.ts"
import type { Outcome, Reader, ReadGroup } from "./read-group.ts"
import { ReadQueue } from "./read-queue.ts"
import type { ReplayBuffer } from "./replay-buffer.ts"

export interface LogReads {
  read(reader: Reader): Promise<Outcome>
  stop(): void
}

export interface LogReadsDeps {
  changelog: Pick<Changelog, "open">
  /** Keeps what was read, so that the next clients need no read. */
  buffer: ReplayBuffer
  /** Another lineage in the log than the feed's means that the feed does not know yet. */
  position: Pick<Position, "lineage" | "head">
  log: Log
  metrics: Metrics
}

/** What became of a read. */
type Result = "done" | "cut" | "more"

/** Reads of one kind, each in a session of its own. */
interface Kind {
  readonly queue: ReadQueue
  /** How many run at a time. */
  readonly atOnce: number
  read(group: ReadGroup, session: Session): Promise<Result>
}

const PAGE = 1_000
/** A short read brings no more changes than this. */
const SHORT = 250
/** How long a read waits for other clients that return at the same moment. Milliseconds. */
const GATHER_MS = 10
/** How many long reads run at a time: one that begins far back does not hold up one that begins near the end. */
const LONG_READS = 2
/** How many positions of a user may wait for long reads. */
const MAX_POSITIONS = 16
/** How long one read may hold its snapshot, from its first page on. Milliseconds. */
const READ_MS = 10_000
/** The same while other users wait, but as long as its first page took at least: what is cut is sorted again. */
const SHARE_MS = 1_000
/** Positions that are not further apart share a read however far back they are. A power of two of transactions. */
const NEAR_BITS = 6n

export function createLogReads({ changelog, buffer, position, log, metrics }: LogReadsDeps): LogReads {
  let stopped = false
  /** The size of a page. One that does not come in time is tried smaller. */
  let size = PAGE
  const short: Kind = { queue: new ReadQueue(), atOnce: 1, read: readShort }
  const long: Kind = { queue: new ReadQueue(), atOnce: LONG_READS, read: readLong }
  const working = new Map<Kind, number>()

  async function work(kind: Kind): Promise<void> {
    const { queue } = kind
    let session: Session | undefined
    working.set(kind, (working.get(kind) ?? 0) + 1)
    while (queue.size > 0 && !stopped) {
      await sleep(GATHER_MS)
      queue.dropGone()
      const group = queue.take()
      // All who wait have a read under way: whoever does it goes on with them.
      if (group === undefined) break
      const began = performance.now()
      try {
        session ??= await changelog.open()
        if (session.lineage !== position.lineage)
          throw new Error("the log is of another lineage than the feed")
        metrics.logReads.inc({ result: await kind.read(group, session) })
        size = Math.min(PAGE, size * 2)
      } catch (error) {
        session?.close()
        session = undefined
        if (isTimeout(error)) size = Math.ceil(size / 4)
        metrics.logReads.inc({ result: "failed" })
        log.warn({ event: "log_read_failed", error: reasonOf(error) }, "a read of the log failed")
      }
      group.dismissAll({ kind: "failed" })
      queue.release(group, performance.now() - began)
    }
    session?.close()
    working.set(kind, (working.get(kind) ?? 1) - 1)
  }

  function start(kind: Kind): void {
    if (kind.queue.size > 0 && (working.get(kind) ?? 0) < kind.atOnce) void work(kind)
  }

  /** Reads what a group misses if it is little; otherwise half of them are tried again, and the others wait for a long read. */
  async function readShort(group: ReadGroup, session: Session): Promise<Result> {
    const { head, cut, ...entries } = await session.read(group.since, SHORT)
    group.dismissOlderThan(head.horizon)
    if (cut) {
      const { recent, older } = group.split()
      for (const read of recent) short.queue.add(read)
      long.queue.dropGone()
      for (const read of older) {
        if (long.queue.hasRoom(read.reader, MAX_POSITIONS)) long.queue.add(read)
        else read.settle({ kind: "refused" })
      }
      start(long)
      return "more"
    }
    await group.give({ head, ...entries, last: undefined, final: true })
    const kept = new KeptPages(group.since, buffer)
    kept.add(entries.changes)
    finish(group, session, kept, head)
    return "done"
  }

  /** Reads once for a group, in pages. @returns whether it came to the end of the log. */
  async function readLong(group: ReadGroup, session: Session): Promise<Result> {
    const { since, rest } = group
    const kept = rest === undefined ? new KeptPages(since, buffer) : undefined
    const began = performance.now()
    let sortedMs: number | undefined
    let after = rest?.after ?? "0"
    for await (const page of session.pages(since, size, rest)) {
      // The first page comes when all are sorted, which may take its time.
      sortedMs ??= performance.now() - began
      group.dismissOlderThan(page.head.horizon)
      await group.give(page)
      kept?.add(page.changes)
      after = page.last ?? after
      if (page.final) {
        finish(group, session, kept, page.head)
        return "done"
      }
      await group.waitForSlow()
      group.dismissGone()
      const { snapshot } = page.head
      const left = (): Rest => ({ until: snapshot, after, ...(page.order && { order: page.order.rest() }) })
      const tookMs = performance.now() - began - sortedMs
      const over = tookMs > (long.queue.othersThan(group) ? Math.max(SHARE_MS, sortedMs) : READ_MS)
      if (stopped || over) group.dismissAll({ kind: "cut", rest: left() })
      else group.dismissSlow(left)
      if (group.empty) return "cut"
    }
    return "done"
  }

  /** All that a group missed was given to it. */
  function finish(
    group: ReadGroup,
    { lineage }: Session,
    kept: KeptPages | undefined,
    { horizon, snapshot }: { horizon: Snapshot; snapshot: Snapshot },
  ): void {
    // The feed may have begun anew, on another log, since the read began.
    if (contains(group.since, horizon) && lineage === position.lineage) kept?.prepend({ lineage, snapshot })
    group.dismissAll({ kind: "done", until: snapshot })
  }

  return {
    read(reader) {
      return new Promise((settle) => {
        if (stopped) return settle({ kind: "failed" })
        const kind = reader.rest === undefined ? short : long
        kind.queue.add({ reader, distance: distanceOf(reader.since, position.head?.snapshot), settle })
        start(kind)
      })
    },
    stop() {
      stopped = true
      for (const { queue } of [short, long])
        for (const { settle } of queue.clear()) settle({ kind: "failed" })
    },
  }
}

/** How far a position is behind another, as the number of bits. */
function distanceOf({ xmin }: Snapshot, head: Snapshot | undefined): number {
  const behind = (head?.xmax ?? xmin) - xmin
  return behind > 0n ? (behind >> NEAR_BITS).toString(2).length : 0
}
