/**
 * Log reads: what returning clients miss, read beside the feed's own session. Clients that are about equally far back
 * share a read, so that thousands that return at once cost the database a handful of reads. A slow one leaves the read
 * and goes on with another: it holds up neither the others nor, by an old snapshot, a rotation.
 */

import { setTimeout as sleep } from "node:timers/promises"
import type { Change } from "../change/change.ts"
import { contains } from "../change/cursor.ts"
import type { Changelog } from "../feed/changelog.ts"
import { isTimeout } from "../feed/log-connection.ts"
import type { Rest } from "../feed/log-pages.ts"
import type { Session } from "../feed/log-session.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Position } from "./position.ts"
import { nextGroup, type Outcome, type PendingRead, type Reader, type ReadGroup } from "./read-group.ts"
import { type ReplayBuffer, sizeOf } from "./replay-buffer.ts"

export interface LogReads {
  read(reader: Reader): Promise<Outcome>
  stop(): void
}

export interface LogReadsDeps {
  changelog: Changelog
  /** Keeps what was read, so that the next clients need no read. */
  buffer: ReplayBuffer
  /** Another lineage in the log than the feed's means that the feed does not know yet. */
  position: Pick<Position, "lineage">
  log: Log
  metrics: Metrics
}

const PAGE = 1_000
/** How long a read waits for other clients that return at the same moment. Milliseconds. */
const GATHER_MS = 10
/** How many reads run at a time: one that begins far back does not hold up one that begins near the end. */
const READS = 2
/** How long one read may hold its snapshot. Milliseconds. */
const READ_MS = 10_000

export function createLogReads({ changelog, buffer, position, log, metrics }: LogReadsDeps): LogReads {
  let waiting: PendingRead[] = []
  let reading = 0
  let stopped = false
  /** The size of a page. One that does not come in time is tried smaller. */
  let size = PAGE

  async function work(): Promise<void> {
    reading++
    let session: Session | undefined
    while (waiting.length > 0 && !stopped) {
      await sleep(GATHER_MS)
      const [oldest, ...later] = waiting
      if (oldest === undefined) continue
      const { group, others } = nextGroup([oldest, ...later])
      waiting = others
      try {
        session ??= await changelog.open()
        metrics.logReads.inc({ result: await readFor(group, session) })
        size = Math.min(PAGE, size * 2)
      } catch (error) {
        session?.close()
        session = undefined
        if (isTimeout(error)) size = Math.ceil(size / 4)
        metrics.logReads.inc({ result: "failed" })
        log.warn({ event: "log_read_failed", error: (error as Error).message }, "a read of the log failed")
      }
      group.dismissAll({ kind: "failed" })
    }
    session?.close()
    reading--
  }

  /** Reads once for a group, in pages. @returns whether it came to the end of the log. */
  async function readFor(group: ReadGroup, session: Session): Promise<"done" | "cut"> {
    const { lineage } = session
    if (lineage !== position.lineage) throw new Error("the log is of another lineage than the feed")
    const { since, rest } = group
    const kept = new KeptPages(rest === undefined ? buffer.room() : 0)
    let deadline: number | undefined
    let after = rest?.after ?? "0"
    for await (const page of session.pages(since, size, rest)) {
      // The first page comes when all are sorted, which may take its time.
      deadline ??= performance.now() + READ_MS
      const { snapshot, horizon } = page.head
      group.dismissOlderThan(horizon)
      await group.give(page)
      kept.add(page.changes)
      after = page.last ?? after
      if (page.final) {
        // The feed may have begun anew, on another log, since the read began.
        const whole = rest === undefined && contains(since, horizon) && lineage === position.lineage
        if (whole && kept.pages !== undefined) buffer.prepend(since, kept.pages, { lineage, snapshot })
        group.dismissAll({ kind: "done", until: snapshot })
        return "done"
      }
      await group.waitForSlow()
      group.dismissGone()
      const left = (): Rest => ({ until: snapshot, after, ...(page.order && { order: page.order.rest() }) })
      if (stopped || performance.now() > deadline) group.dismissAll({ kind: "cut", rest: left() })
      else group.dismissSlow(left)
      if (group.empty) return "cut"
    }
    return "done"
  }

  return {
    read(reader) {
      return new Promise((settle) => {
        if (stopped) return settle({ kind: "failed" })
        waiting.push({ reader, settle })
        if (reading < READS) void work()
      })
    },
    stop() {
      stopped = true
      for (const { settle } of waiting.splice(0)) settle({ kind: "failed" })
    },
  }
}

/** The pages of a read, as long as there is room for all of them. */
class KeptPages {
  readonly #roomBytes: number
  #pages: Array<readonly Change[]> | undefined = []
  #bytes = 0

  constructor(roomBytes: number) {
    this.#roomBytes = roomBytes
  }

  /** Undefined if they were too many. */
  get pages(): readonly (readonly Change[])[] | undefined {
    return this.#pages
  }

  add(changes: readonly Change[]): void {
    this.#bytes += sizeOf(changes)
    if (this.#bytes > this.#roomBytes) this.#pages = undefined
    else this.#pages?.push(changes)
  }
}
