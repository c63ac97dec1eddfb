/**
 * History: reads of the log for those who return, beside the feed's own. Whoever asks while a read is waiting or shares
 * its reach joins it, so that thousands who return at once cost the database a handful of reads. A slow reader is let
 * go and goes on with another read where it was: it holds up neither the others nor, by an old snapshot, a rotation.
 */

import { setTimeout as sleep } from "node:timers/promises"
import type { Change } from "../change/change.ts"
import { contains, intersection, type Snapshot } from "../change/cursor.ts"
import type { Changelog } from "../feed/changelog.ts"
import type { LogPage, Rest, Session } from "../feed/log-session.ts"
import { TimeSlice } from "../lib/time-slice.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { type ReplayBuffer, sizeOf } from "./replay-buffer.ts"

/** Somebody who misses what is in the log since a position. */
export interface Reader {
  readonly since: Snapshot
  /** What an earlier read of the same left over. */
  readonly rest: Rest | undefined
  /** Takes a page; of its changes some may be visible in `since`. */
  take(page: LogPage): void
  /** Whether it can take another. */
  ready(): boolean
  /** Resolves when it can, or is gone. */
  whenReady(): Promise<void>
  gone(): boolean
}

export type Outcome =
  /** Everything up to here was taken. */
  | { kind: "done"; until: Snapshot }
  /** It did not keep up, or the time of one read was over: ask again for the rest. */
  | { kind: "cut"; rest: Rest }
  /** The log does not hold it any more. */
  | { kind: "too_old" }
  | { kind: "failed" }

export interface History {
  read(reader: Reader): Promise<Outcome>
  stop(): void
}

export interface LogReadsDeps {
  changelog: Changelog
  /** Is told what was read, so that those who come next need no read. */
  recent: ReplayBuffer
  /** The feed's lineage: another one in the log means that the feed does not know yet. */
  lineage(): string | undefined
  log: Log
  metrics: Metrics
}

const PAGE = 1_000
/** How long a read waits for others who return at the same moment. Milliseconds. */
const GATHER_MS = 10
/** Reads at a time: one far back does not hold up those that are nearly there. */
const READS = 2
/** How long a page waits for the slower readers of a read. Milliseconds. */
const PATIENCE_MS = 250
/** How long one read may hold its snapshot. Milliseconds. */
const READ_MS = 10_000

interface Waiting {
  readonly reader: Reader
  settle(outcome: Outcome): void
}

export function createLogReads({ changelog, recent, lineage, log, metrics }: LogReadsDeps): History {
  let waiting: Waiting[] = []
  let reading = 0
  let stopped = false

  /** Takes those who can share a read with the one who has waited longest. */
  function nextGroup(): Waiting[] {
    const oldest = waiting[0]
    if (oldest === undefined) return []
    const youngest = waiting.reduce((xmin, { reader }) => max(xmin, reader.since.xmin), 0n)
    const reach = reachOf(oldest.reader, youngest)
    const group: Waiting[] = []
    const others: Waiting[] = []
    for (const one of waiting) (reachOf(one.reader, youngest) === reach ? group : others).push(one)
    waiting = others
    return group
  }

  async function work(): Promise<void> {
    reading++
    let session: Session | undefined
    try {
      while (waiting.length > 0 && !stopped) {
        await sleep(GATHER_MS)
        const group = nextGroup()
        if (group.length === 0) continue
        try {
          session ??= await changelog.open()
          metrics.logReads.inc({ result: await readFor(new Set(group), session) })
        } catch (error) {
          session?.close()
          session = undefined
          metrics.logReads.inc({ result: "failed" })
          log.warn({ event: "log_read_failed", error: (error as Error).message }, "a read of the log failed")
        } finally {
          for (const one of group) one.settle({ kind: "failed" })
        }
      }
    } finally {
      session?.close()
      reading--
    }
  }

  /**
   * One read for a group: all of it passes the readers in pages. Those who are done or cut leave the group.
   * @returns whether it came to its end.
   */
  async function readFor(group: Set<Waiting>, session: Session): Promise<"done" | "cut"> {
    if (session.lineage !== lineage()) throw new Error("the log is of another lineage than the feed")
    const [first] = group
    if (first === undefined) return "done"
    const positions = new Map([...group].map(({ reader: { since } }) => [since.text, since]))
    const since = [...positions.values()].reduce(intersection)
    let deadline: number | undefined
    const leave = (one: Waiting, outcome: Outcome) => {
      group.delete(one)
      one.settle(outcome)
    }
    let after = first.reader.rest?.after ?? "0"
    const room = recent.room()
    let kept: Change[][] | undefined = first.reader.rest === undefined ? [] : undefined
    let size = 0
    for await (const page of session.pages(since, PAGE, first.reader.rest)) {
      // The first page comes when all are sorted, which may take its time.
      deadline ??= performance.now() + READ_MS
      const { snapshot, horizon } = page.head
      for (const one of group) if (!contains(one.reader.since, horizon)) leave(one, { kind: "too_old" })
      await give(page, group)
      size += sizeOf(page.changes)
      if (size > room) kept = undefined
      kept?.push(page.changes)
      after = page.changes.at(-1)?.id ?? after
      if (page.final) {
        // The feed may have begun anew, on another log, since the read began.
        if (kept !== undefined && contains(since, horizon) && session.lineage === lineage())
          recent.prepend(since, kept, { lineage: session.lineage, snapshot })
        for (const one of group) leave(one, { kind: "done", until: snapshot })
      } else {
        await patience(group)
        const over = stopped || performance.now() > deadline
        for (const one of group) {
          if (one.reader.gone()) leave(one, { kind: "failed" })
          else if (over || !one.reader.ready()) leave(one, { kind: "cut", rest: { until: snapshot, after } })
        }
      }
      if (group.size === 0) return page.final ? "done" : "cut"
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

async function give(page: LogPage, group: ReadonlySet<Waiting>): Promise<void> {
  const slice = new TimeSlice()
  for (const { reader } of group) {
    reader.take(page)
    if (slice.over) await slice.turn()
  }
}

/** Waits for the readers that can't take more, for a while. */
async function patience(group: ReadonlySet<Waiting>): Promise<void> {
  const busy = [...group].filter(({ reader }) => !reader.ready())
  if (busy.length === 0) return
  let timer: NodeJS.Timeout | undefined
  const enough = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, PATIENCE_MS)
  })
  await Promise.race([Promise.all(busy.map(({ reader }) => reader.whenReady())), enough])
  clearTimeout(timer)
}

/** Readers that begin about equally far back can share a read; one that goes on shares it with its like. */
function reachOf({ since, rest }: Reader, youngest: bigint): string {
  if (rest !== undefined) return `${rest.until.text} ${rest.after}`
  return String((youngest - since.xmin).toString(2).length)
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b)
