/** The source: what a relay has of its database. Listener and feed, the rotation of the log, and the look at the tables. */

import type { Settings } from "../config.ts"
import { createDerived, type DerivedReport } from "../derived/derived.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { FeedConsumer } from "./batch.ts"
import type { BellReport } from "./bell.ts"
import { type CanaryState, createCanary } from "./canary.ts"
import type { Changelog, TrackedTable } from "./changelog.ts"
import { createFeed, type FeedState } from "./feed.ts"
import { createListener, type ListenerState } from "./listener.ts"

export interface SourceState {
  listener: ListenerState
  feed: FeedState
  /** Everything committed longer ago than this was delivered; milliseconds. */
  lagMs: number
  bell: BellReport
  canary: CanaryState
}

/** What the consumer of a feed may ask of where it comes from. */
export interface Source {
  /** Begins to listen and to read, and keeps trying. */
  start(): void
  state(): SourceState
  /** Resolves after a whole read of the log that began later; false if there is none within the time, in milliseconds. */
  refresh(timeoutMs: number): Promise<boolean>
  /** The tracked tables, looked at anew; as they were known if the database does not answer. */
  tables(): Promise<TrackedTable[]>
  /** What is derived from them. */
  derived(): DerivedReport[]
  stop(): Promise<void>
}

export interface SourceDeps {
  settings: Readonly<Settings>
  databaseUrl: string
  changelog: Changelog
  consumer: FeedConsumer
  log: Log
  metrics: Metrics
  /** As RelayDeps has it. */
  floorMs?: number | undefined
}

/** The channel of the bell, as relay.ring has it. */
const BELL_CHANNEL = "election_updates"
/** How often the log is looked at for rotation, and the tables for problems. Milliseconds. */
const CHORES_MS = 30_000

/** Makes the source of a database. */
export function createSource({
  settings,
  databaseUrl,
  changelog,
  consumer,
  log,
  metrics,
  floorMs,
}: SourceDeps): Source {
  const derived = createDerived({ connectionString: databaseUrl, show: consumer.show, log, metrics })
  const noticed: FeedConsumer = {
    ...consumer,
    async deliver(part) {
      await consumer.deliver(part)
      derived.notice(part.changes)
    },
    meet(lineage, lineages) {
      consumer.meet(lineage, lineages)
      derived.doubt()
    },
  }
  const canary = createCanary({ changelog, log, metrics, intervalMs: settings.CANARY_SECONDS * 1_000 })
  const feed = createFeed({
    changelog,
    consumer: noticed,
    log,
    metrics,
    onCanaries: canary.heard,
    bell: settings.BELL,
    floorMs,
  })
  const listener = createListener({
    connectionString: databaseUrl,
    channel: BELL_CHANNEL,
    log,
    metrics,
    onBell: feed.heard,
    onLease: feed.wake,
    onUp: feed.wake,
  })
  let tables: TrackedTable[] = []
  let logBytes = 0
  let chores: NodeJS.Timeout | undefined

  metrics.observe(
    "relay_feed_lag_seconds",
    "Everything committed longer ago was delivered",
    () => feed.lagMs() / 1_000,
  )
  metrics.observe(
    "relay_feed_backlog",
    "Changes of the read in progress that are still to be delivered",
    feed.backlog,
  )
  metrics.observe("relay_log_bytes", "Size of the changelog, looked at each 30 s", () => logBytes)
  metrics.observe(
    "relay_log_limit_bytes",
    "The size from which the changelog is rotated early",
    () => settings.RETENTION_MB * 1_048_576,
  )
  metrics.observe("relay_listener_up", "1 while LISTEN is proven", () =>
    listener.state().kind === "up" ? 1 : 0,
  )
  metrics.observe("relay_feed_up", "1 while the log can be read", () => (feed.state().kind === "up" ? 1 : 0))
  metrics.observe(
    "relay_tables_with_problems",
    "Tracked tables whose capture is incomplete",
    () => tables.filter((table) => table.problem !== null).length,
  )

  async function checkTables(): Promise<void> {
    const found = await changelog.tracked()
    for (const { name, problem } of found) {
      const known = tables.find((table) => table.name === name)?.problem
      if (problem !== null && problem !== known)
        log.warn({ event: "table_problem", table: name, problem }, "the capture of a table is incomplete")
    }
    tables = found
  }

  async function runChores(): Promise<void> {
    try {
      const rotation = await changelog.rotate(settings.RETENTION_HOURS, settings.RETENTION_MB)
      if (rotation !== "not_due") {
        metrics.rotations.inc({ result: rotation })
        log.info({ event: "rotation", result: rotation }, "rotation of the changelog")
      }
      await checkTables()
      logBytes = await changelog.size()
    } catch (error) {
      log.warn(
        { event: "chores_failed", error: (error as Error).message },
        "rotation and table checks are tried again later",
      )
    }
  }

  return {
    start() {
      listener.start()
      feed.start()
      derived.start()
      canary.start()
      void runChores()
      chores = setInterval(runChores, CHORES_MS)
      chores.unref()
    },
    state: () => ({
      listener: listener.state(),
      feed: feed.state(),
      lagMs: feed.lagMs(),
      bell: feed.bell(),
      canary: canary.state(),
    }),
    refresh: feed.refresh,
    async tables() {
      await checkTables().catch(() => {})
      return tables
    },
    derived: derived.report,
    async stop() {
      clearInterval(chores)
      await Promise.all([listener.stop(), feed.stop(), derived.stop(), canary.stop()])
    },
  }
}
