/** The relay: listener, feed, hub and gateway, wired. */

import type { Server } from "node:http"
import { type Auth, createAuth } from "./auth.ts"
import { createChangelog, type TrackedTable } from "./changelog.ts"
import type { Settings } from "./config.ts"
import { cursorText } from "./cursor.ts"
import { createFeed, type Feed, type FeedState } from "./feed.ts"
import { createGateway } from "./gateway.ts"
import { createHistory } from "./history.ts"
import { createHub, type Hub, type HubStats } from "./hub.ts"
import { createListener, type ListenerState } from "./listener.ts"
import type { Log } from "./log.ts"
import { createMetrics, type Metrics } from "./metrics.ts"
import { createRecent } from "./recent.ts"

export interface RelayDeps {
  settings: Readonly<Settings>
  databaseUrl: string
  version: string
  log: Log
}

/** What operations may know. */
export interface RelayStatus {
  ready: boolean
  /** Why not, in words. */
  problems: string[]
  version: string
  uptimeSeconds: number
  listener: ListenerState
  feed: FeedState
  lagSeconds: number
  bell: string
  hub: HubStats
  tables: TrackedTable[]
}

export interface Relay {
  readonly auth: Auth
  readonly metrics: Metrics
  /** Begins to listen and to read, and keeps trying. */
  start(): void
  /** Resolves once clients can connect and changes arrive. */
  whenReady(): Promise<void>
  attach(server: Server): void
  status(): RelayStatus
  /** The same, with the tables looked at anew; as they were known if the database does not answer. */
  report(): Promise<RelayStatus>
  /** Closes clients, then the database. Idempotent. */
  stop(): Promise<void>
}

/** The channel of the bell, as relay.ring has it. */
const BELL_CHANNEL = "election_updates"
/** A proof or a read that is older makes the relay not ready. Milliseconds. */
const STALE_MS = 20_000
const LAG_BOUND_MS = 5_000
/** How often the log is looked at for rotation, and the tables for problems. Milliseconds. */
const CHORES_MS = 30_000

/** @throws ConfigError if no key for tokens is set. */
export function createRelay({ settings, databaseUrl, version, log }: RelayDeps): Relay {
  const metrics = createMetrics()
  const auth = createAuth(settings)
  const changelog = createChangelog(databaseUrl, (error) =>
    log.debug({ event: "idle_connection_lost", error: error.message }),
  )
  const recent = createRecent(settings.REPLAY_BUFFER_MB * 1_048_576)
  const history = createHistory({ changelog, recent, lineage: () => hub.lineage(), log, metrics })
  const hub: Hub = createHub({
    log,
    metrics,
    recent,
    history,
    refresh: (timeoutMs) => feed.refresh(timeoutMs),
    settings: {
      laneBufferBytes: settings.LANE_BUFFER_MB * 1_048_576,
      heartbeatMs: settings.HEARTBEAT_SECONDS * 1_000,
      authTimeoutMs: settings.AUTH_TIMEOUT_SECONDS * 1_000,
    },
  })
  const feed: Feed = createFeed({ changelog, consumer: hub.consumer, log, metrics, bell: settings.BELL })
  const listener = createListener({
    connectionString: databaseUrl,
    channel: BELL_CHANNEL,
    log,
    metrics,
    onBell: feed.wake,
    onUp: feed.wake,
  })
  const gateway = createGateway({
    hub,
    auth,
    log,
    metrics,
    settings: {
      path: settings.WS_PATH,
      allowedOrigins: settings.ALLOWED_ORIGINS,
      queryToken: settings.QUERY_TOKEN,
      maxChannels: settings.MAX_CHANNELS,
      heartbeatMs: settings.HEARTBEAT_SECONDS * 1_000,
    },
  })
  const startedAt = performance.now()
  let tables: TrackedTable[] = []
  let chores: NodeJS.Timeout | undefined
  let stopping: Promise<void> | undefined

  metrics.observe("relay_connections", "Connections now", () => hub.size().connections)
  metrics.observe("relay_users", "Users with live connections now", () => hub.size().users)
  metrics.observe("relay_replays", "Connections that are not live yet", () => hub.size().replaying)
  metrics.observe("relay_lanes", "Lanes now", () => hub.size().lanes)
  metrics.observe(
    "relay_feed_lag_seconds",
    "Everything committed longer ago was delivered",
    () => feed.lagMs() / 1_000,
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
    } catch (error) {
      log.warn(
        { event: "chores_failed", error: (error as Error).message },
        "rotation and table checks are tried again later",
      )
    }
  }

  function problems(): string[] {
    const found: string[] = []
    const heard = listener.state()
    if (heard.kind === "down") found.push(`not listening: ${heard.error ?? "connecting"}`)
    else if (performance.now() - heard.provenAt > STALE_MS) found.push("the listener's last proof is too old")
    const read = feed.state()
    if (read.kind === "down") found.push(`the changelog cannot be read: ${read.error ?? "connecting"}`)
    else if (feed.lagMs() > LAG_BOUND_MS)
      found.push(`the feed is ${Math.round(feed.lagMs() / 1_000)} s behind`)
    if (stopping !== undefined) found.push("stopping")
    return found
  }

  function status(): RelayStatus {
    const found = problems()
    return {
      ready: found.length === 0,
      problems: found,
      version,
      uptimeSeconds: Math.round((performance.now() - startedAt) / 1_000),
      listener: listener.state(),
      feed: feed.state(),
      lagSeconds: feed.lagMs() / 1_000,
      bell: feed.bellMode(),
      hub: hub.stats(),
      tables,
    }
  }

  return {
    auth,
    metrics,
    start() {
      listener.start()
      feed.start()
      void runChores()
      chores = setInterval(runChores, CHORES_MS)
      chores.unref()
    },
    async whenReady() {
      while (problems().length > 0 && stopping === undefined)
        await new Promise((resolve) => setTimeout(resolve, 20))
    },
    attach: gateway.attach,
    status,
    async report() {
      // The report is most wanted when the database is away: it must not wait for it.
      await checkTables().catch(() => {})
      return status()
    },
    stop() {
      stopping ??= (async () => {
        gateway.stop()
        clearInterval(chores)
        await hub.drain(settings.DRAIN_TIMEOUT_SECONDS * 1_000)
        history.stop()
        await Promise.all([listener.stop(), feed.stop()])
        await changelog.close()
      })()
      return stopping
    },
  }
}

/** The cursor of a feed that is up. */
export const feedCursor = (state: FeedState): string | null =>
  state.kind === "up" ? cursorText(state.cursor) : null
