/**
 * When to poll and when to wait for the bell. NOTIFY holds a lock of the whole cluster through the commit's fsync, so
 * that many writers queue behind it; while a relay polls anyway it takes a lease, and triggers that see it do not ring.
 * The way back must not lose those that skipped the bell and have not committed yet: after the lease a fence xid is
 * taken, and polling goes on until every transaction below it has ended.
 */

import type { Session } from "./changelog.ts"
import type { Snapshot } from "./cursor.ts"
import type { Metrics } from "./metrics.ts"

export type BellMode =
  | { kind: "quiet" }
  | { kind: "awake" }
  /** The lease is over; transactions that saw it may still be open. */
  | { kind: "tail"; fence: bigint; since: number }

export interface Bell {
  /** A bell rang. */
  heard(): void
  /** How long to wait before reading without a bell, in milliseconds. */
  pollMs(): number
  /** Decides, by what a read has shown, whether to take, renew or leave the lease. */
  afterRead(
    session: Session,
    read: { snapshot: Snapshot; leaseMs: number; transactions: number },
  ): Promise<void>
  mode(): BellMode["kind"]
}

const FLOOR_MS = 1_000
const AWAKE_POLL_MS = 5
const OFF_POLL_MS = 50
const WINDOW_MS = 200
/** Below about 1,000 commits/s a bell for each is harmless; polling saves work from half of that. */
const ENTER_PER_SECOND = 500
const STAY_PER_SECOND = 250
const LEASE_MS = 1_000
const RENEW_BELOW_MS = 500

export function createBell({
  setting,
  metrics,
}: {
  setting: "adaptive" | "always" | "off"
  metrics: Metrics
}): Bell {
  let mode: BellMode = { kind: "quiet" }
  const bells = createRate()
  const commits = createRate()

  function enter(next: BellMode): void {
    if (next.kind !== mode.kind) metrics.bellModes.inc({ mode: next.kind })
    mode = next
  }

  async function renew(session: Session, leaseMs: number): Promise<number> {
    const busy =
      setting === "off" ||
      (mode.kind === "awake" ? commits.perSecond() >= STAY_PER_SECOND : bells.perSecond() >= ENTER_PER_SECOND)
    if (!busy || leaseMs > RENEW_BELOW_MS) return leaseMs
    // Other relays are told once: from then on each read shows them the lease.
    await session.lease(LEASE_MS, leaseMs === 0)
    return LEASE_MS
  }

  return {
    heard: () => bells.count(1),
    pollMs() {
      if (setting === "off") return OFF_POLL_MS
      if (mode.kind === "quiet") return FLOOR_MS
      if (mode.kind === "awake") return AWAKE_POLL_MS
      // A forgotten transaction, of another database even, must not keep the relay polling hard.
      const waited = performance.now() - mode.since
      return waited < 5_000 ? 20 : waited < 60_000 ? 50 : FLOOR_MS
    },
    async afterRead(session, { snapshot, leaseMs, transactions }) {
      commits.count(transactions)
      const lease = setting === "always" ? leaseMs : await renew(session, leaseMs)
      if (lease > 0) {
        enter({ kind: "awake" })
      } else if (mode.kind === "awake") {
        enter({ kind: "tail", fence: await session.fence(), since: performance.now() })
      } else if (mode.kind === "tail" && snapshot.xmin >= mode.fence) {
        enter({ kind: "quiet" })
      }
    },
    mode: () => mode.kind,
  }
}

/** Counts events over the last window and the one before. */
function createRate(): { count(events: number): void; perSecond(): number } {
  let windowStart = performance.now()
  let current = 0
  let previous = 0
  function roll(): void {
    const elapsed = performance.now() - windowStart
    if (elapsed < WINDOW_MS) return
    previous = elapsed < 2 * WINDOW_MS ? current : 0
    current = 0
    windowStart = performance.now()
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
