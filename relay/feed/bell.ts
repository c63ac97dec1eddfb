/**
 * The bell: when to poll and when to wait for a notification. NOTIFY holds a lock of the whole cluster through the
 * commit's fsync, so many writers queue behind it. While a relay polls anyway it takes a lease, and triggers that see a
 * lease do not ring. The way back must not lose transactions that skipped the bell and have not committed yet: when a
 * lease is over, any relay takes it away, then takes a fence xid, and polls until every transaction below it has ended.
 */

import { z } from "zod"
import type { Snapshot } from "../change/cursor.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Head } from "./head.ts"
import type { Session } from "./log-session.ts"
import type { ReadResult } from "./reader.ts"

type BellMode =
  | { kind: "quiet" }
  | { kind: "awake" }
  /** The lease is over; transactions that saw it may still be open. */
  | { kind: "tail"; fence: bigint; since: number }

/** The mode of the bell, and counts since the start. */
export const BellReport = z.object({
  mode: z.enum(["quiet", "awake", "tail"]),
  /** Bells that rang. */
  heard: z.number(),
  /** Transactions that were read without a bell of theirs. */
  skipped: z.number(),
  /** Reads for which nothing rang. */
  polls: z.number(),
})
export type BellReport = z.infer<typeof BellReport>

export interface Bell {
  /** A bell of this transaction rang. */
  rang(xid: string): void
  /** Bells may have been missed, or left out for a lease that no read has shown. */
  recheck(): void
  /** How long to wait for a bell before reading without one, in milliseconds. */
  pollMs(hasClients: boolean): number
  /** That time is over: the feed reads without a bell. */
  polled(): void
  /** Takes, renews or ends the lease, by what a read has shown. */
  afterRead(session: Session, result: ReadResult): Promise<void>
  report(): BellReport
}

const FLOOR_MS = 1_000
const AWAKE_POLL_MS = 5
/** From so many commits/s a read each 5 ms costs more than what it brings. */
const RUSH_PER_SECOND = 2_000
const RUSH_POLL_MS = 10
/** While no client is there to see the difference. A read still brings less than a page. */
const UNATTENDED_POLL_MS = 50
const OFF_POLL_MS = 50
const WINDOW_MS = 200
/** Below about 1,000 commits/s a bell for each is harmless; polling saves work from half of that. */
const ENTER_PER_SECOND = 500
const STAY_PER_SECOND = 250
/** Enough of them while writers queue: they ring one by one then, an fsync each, on a slow disk never so often as above. */
const QUEUE_PER_SECOND = 20
const LEASE_MS = 1_000
const RENEW_BELOW_MS = 500
/**
 * A forgotten transaction, even a prepared one or one of another database, must not keep the relay polling. The floor
 * will find what it has written.
 */
const TAIL_MS = 60_000
const FAST_TAIL_MS = 5_000

export function createBell({
  setting,
  metrics,
  floorMs = FLOOR_MS,
  now = () => performance.now(),
}: {
  setting: "adaptive" | "always" | "off"
  metrics: Metrics
  floorMs?: number | undefined
  /** Monotonic milliseconds. */
  now?: () => number
}): Bell {
  let mode: BellMode = { kind: "quiet" }
  /** There may have been a lease since the last fence that no read has shown. */
  let recheckDue = false
  const counts = { heard: 0, skipped: 0, polls: 0 }
  const matcher = createBellMatcher(now)
  const bells = createRate(now)
  const commits = createRate(now)
  const queue = createWriterQueue(now)
  for (const kind of ["quiet", "awake", "tail"] as const)
    metrics.bellMode.set({ mode: kind }, kind === mode.kind ? 1 : 0)

  function enter(next: BellMode): void {
    if (next.kind !== mode.kind) {
      metrics.bellModes.inc({ mode: next.kind })
      metrics.bellMode.set({ mode: mode.kind }, 0)
      metrics.bellMode.set({ mode: next.kind }, 1)
    }
    mode = next
  }

  async function renew(session: Session, leaseMs: Head["leaseMs"]): Promise<Head["leaseMs"]> {
    const [rate, enough] = mode.kind === "awake" ? [commits, STAY_PER_SECOND] : [bells, ENTER_PER_SECOND]
    const busy =
      setting === "off" || rate.perSecond() >= (queue.waits ? Math.min(enough, QUEUE_PER_SECOND) : enough)
    if (!busy || (leaseMs ?? 0) > RENEW_BELOW_MS) return leaseMs
    await session.lease(LEASE_MS)
    return LEASE_MS
  }

  return {
    rang(xid) {
      counts.heard++
      bells.count(1)
      matcher.rang(xid)
    },
    recheck() {
      recheckDue = true
    },
    pollMs(hasClients) {
      if (setting === "off") return OFF_POLL_MS
      if (mode.kind === "quiet") return floorMs
      if (mode.kind === "tail") return now() - mode.since < FAST_TAIL_MS ? 20 : 50
      if (!hasClients) return UNATTENDED_POLL_MS
      return commits.perSecond() < RUSH_PER_SECOND ? AWAKE_POLL_MS : RUSH_POLL_MS
    },
    polled() {
      counts.polls++
    },
    async afterRead(session, { snapshot, leaseMs, transactions }) {
      commits.count(transactions.size)
      queue.read(snapshot)
      const skipped = matcher.read(transactions)
      counts.skipped += skipped
      metrics.skips.inc(skipped)
      const lease = setting === "always" ? leaseMs : await renew(session, leaseMs)
      if (lease !== null && lease > 0) {
        enter({ kind: "awake" })
      } else if (lease !== null || recheckDue || mode.kind === "awake") {
        // Before the fence: a recheck that is asked for meanwhile needs a fence of its own.
        recheckDue = false
        const over = await session.endLease()
        enter(over ? { kind: "tail", fence: await session.fence(), since: now() } : { kind: "awake" })
      } else if (mode.kind === "tail" && (snapshot.xmin >= mode.fence || now() - mode.since > TAIL_MS)) {
        enter({ kind: "quiet" })
      }
    },
    report: () => ({ mode: mode.kind, ...counts }),
  }
}

/** Counts events over the last window and the one before. */
function createRate(now: () => number): { count(events: number): void; perSecond(): number } {
  let windowStart = now()
  let current = 0
  let previous = 0
  function roll(): void {
    const elapsed = now() - windowStart
    if (elapsed < WINDOW_MS) return
    previous = elapsed < 2 * WINDOW_MS ? current : 0
    current = 0
    windowStart = now()
  }
  return {
    count(events) {
      roll()
      current += events
    },
    perSecond() {
      roll()
      return (Math.max(previous, current) * 1_000) / WINDOW_MS
    },
  }
}

/** Whether writers queue for the lock of NOTIFY. They have their transaction ids by then, so a snapshot shows them. */
interface WriterQueue {
  read(snapshot: Snapshot): void
  readonly waits: boolean
}

/** So many transactions in flight at so many reads in a row are a queue. */
const QUEUE_LENGTH = 4
const QUEUE_READS = 3
/** Whoever is in flight for longer waits for something else, or was forgotten. Milliseconds. */
const FORGOTTEN_MS = 5_000

function createWriterQueue(now: () => number): WriterQueue {
  let reads = 0
  /** Transactions below `forgotten` are as old as that; those below `older` will be. */
  let forgotten = 0n
  let older = 0n
  let since = now()
  return {
    read({ xmax, inFlight }) {
      if (now() - since > FORGOTTEN_MS) {
        forgotten = older
        older = xmax
        since = now()
      }
      let waiting = 0
      for (const xid of inFlight) if (xid >= forgotten) waiting++
      reads = waiting >= QUEUE_LENGTH ? reads + 1 : 0
    },
    get waits() {
      return reads >= QUEUE_READS
    },
  }
}

/** Finds the transactions that did not ring, since a bell may come before its read or after it. */
interface BellMatcher {
  /** A bell of this transaction rang. */
  rang(xid: string): void
  /** A read brought these transactions. @returns how many of earlier reads did not ring, as is certain by now. */
  read(xids: Iterable<string>): number
}

interface Generation {
  /** Transactions that rang and have not been read. */
  readonly rang: Set<string>
  /** Transactions that were read and have not rung. */
  readonly silent: Set<string>
}

/** How long after the read a bell may come on a busy machine. Milliseconds. */
const SETTLE_MS = 1_000
/** Anybody may ring with xids that no read will bring. */
const MAX_RANG = 20_000

const generation = (): Generation => ({ rang: new Set(), silent: new Set() })

function createBellMatcher(now: () => number): BellMatcher {
  let older = generation()
  let newer = generation()
  let newerSince = now()
  return {
    rang(xid) {
      if (older.silent.delete(xid) || newer.silent.delete(xid)) return
      if (newer.rang.size < MAX_RANG) newer.rang.add(xid)
    },
    read(xids) {
      for (const xid of xids) if (!older.rang.delete(xid) && !newer.rang.delete(xid)) newer.silent.add(xid)
      // Only reads begin a generation: a bell that rings in the middle of a long read belongs to the next.
      if (now() - newerSince < SETTLE_MS) return 0
      const skipped = older.silent.size
      older = newer
      newer = generation()
      newerSince = now()
      return skipped
    },
  }
}
