/** The source: everything that a relay has of its database, wired. */

import type { Settings } from "../config.ts"
import { createDerived } from "../derived/derived.ts"
import type { DerivedReport } from "../derived/report.ts"
import { createRunner } from "../derived/runner.ts"
import type { StandingProblem } from "../lib/standing.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { FeedConsumer } from "./batch.ts"
import type { BellReport } from "./bell.ts"
import { type CanaryState, createCanary } from "./canary.ts"
import type { Changelog, TrackedTable } from "./changelog.ts"
import { createChores } from "./chores.ts"
import { Feed, type FeedState } from "./feed.ts"
import { openListenSession } from "./listen-session.ts"
import { Listener, type ListenerState } from "./listener.ts"
import type { Unreadable, UnreadableReport } from "./unreadable.ts"

export interface SourceState {
  listener: ListenerState
  feed: FeedState
  /** Everything committed longer ago than this was delivered; milliseconds. */
  lagMs: number
  bell: BellReport
  canary: CanaryState
  /** Rows of the log that were passed over. */
  unreadable: UnreadableReport
  /** What is wrong with the capture and the upkeep of the log. */
  upkeep: readonly StandingProblem[]
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
  changelog: Changelog
  /** What the changelog's sessions have passed over. */
  unreadable: Pick<Unreadable, "report">
  consumer: FeedConsumer
  log: Log
  metrics: Metrics
  /** How often to read where no bell rings and no lease is in force, in milliseconds; 1,000 by default. */
  floorMs?: number | undefined
}

/** The channel on which relay.ring notifies. */
const BELL_CHANNEL = "election_updates"

/** Makes the source of a database. */
export function createSource({
  settings,
  changelog,
  unreadable,
  consumer,
  log,
  metrics,
  floorMs,
}: SourceDeps): Source {
  const derived = createDerived({
    runner: createRunner(changelog.database, log),
    showDerived: consumer.showDerived,
    log,
    metrics,
  })
  const canary = createCanary({ changelog, log, metrics, intervalMs: settings.CANARY_SECONDS * 1_000 })
  const feed = new Feed({
    changelog,
    consumer: {
      ...consumer,
      async deliver(part) {
        await consumer.deliver(part)
        derived.notice(part.changes)
      },
      adopt(lineage, lineages) {
        consumer.adopt(lineage, lineages)
        derived.recheck()
      },
    },
    log,
    metrics,
    onCanaries: canary.receive,
    bell: settings.BELL,
    floorMs,
  })
  const listener = new Listener({
    open: (options) => openListenSession({ database: changelog.database, channel: BELL_CHANNEL, ...options }),
    log,
    metrics,
    onBell: (xid) => feed.rang(xid),
    onLease: () => feed.recheck(),
    onUp: () => feed.recheck(),
  })
  const chores = createChores({ changelog, settings, log, metrics })
  observe({ feed, listener, metrics })

  return {
    start() {
      listener.start()
      feed.start()
      derived.start()
      canary.start()
      chores.start()
    },
    state: () => ({
      listener: listener.state,
      feed: feed.state,
      lagMs: feed.lagMs,
      bell: feed.bell,
      canary: canary.state(),
      unreadable: unreadable.report(),
      upkeep: chores.problems(),
    }),
    refresh: (timeoutMs) => feed.refresh(timeoutMs),
    tables: chores.tables,
    derived: derived.report,
    async stop() {
      await Promise.all([listener.stop(), feed.stop(), derived.stop(), canary.stop(), chores.stop()])
    },
  }
}

function observe({ feed, listener, metrics }: { feed: Feed; listener: Listener; metrics: Metrics }): void {
  metrics.observe(
    "relay_feed_lag_seconds",
    "Everything committed longer ago was delivered",
    () => feed.lagMs / 1_000,
  )
  metrics.observe(
    "relay_feed_backlog",
    "Changes of the read in progress that are still to be delivered",
    () => feed.backlog,
  )
  metrics.observe("relay_listener_up", "1 while LISTEN is proven", () =>
    listener.state.kind === "up" ? 1 : 0,
  )
  metrics.observe("relay_feed_up", "1 while the log can be read", () => (feed.state.kind === "up" ? 1 : 0))
}
