/** The relay: source, hub and gateway, wired. */

import { randomUUID } from "node:crypto"
import type { Server } from "node:http"
import { type Auth, createAuth } from "./access/auth.ts"
import { createJwks } from "./access/jwks.ts"
import { type KeysReport, settledKeys } from "./access/keys.ts"
import { createRevocations } from "./access/revocations.ts"
import type { Settings } from "./config.ts"
import { createChangelog } from "./feed/changelog.ts"
import { createSource, type Source, type SourceState } from "./feed/source.ts"
import { createAudit } from "./gateway/audit.ts"
import { createGateway } from "./gateway/gateway.ts"
import { createLimits } from "./gateway/limits.ts"
import { canaryProblems, derivedProblems, keyProblems, problemsOf } from "./health/readiness.ts"
import { type Report, reportOf } from "./health/report.ts"
import { createHub } from "./hub/hub.ts"
import { readTrust } from "./lib/client-address.ts"
import { createLogReads } from "./replay/log-reads.ts"
import { createReplayBuffer } from "./replay/replay-buffer.ts"
import type { Counts, HubStats } from "./telemetry/counts.ts"
import { totalsOf } from "./telemetry/counts.ts"
import { createDisconnects, type DisconnectsReport } from "./telemetry/disconnects.ts"
import type { Log } from "./telemetry/log.ts"
import { createMetrics, type Metrics } from "./telemetry/metrics.ts"
import type { Upstream } from "./workers/upstream.ts"

export interface RelayDeps {
  settings: Readonly<Settings>
  databaseUrl: string
  version: string
  log: Log
  /** Reads the log for this relay and others; without one it does so itself. */
  upstream?: Upstream
  /** How often the log is read where no bell rings and no lease is in force, in milliseconds; 1,000 by default. */
  floorMs?: number
  /** How long a socket may take nothing although something waits, in milliseconds; 10,000 by default. */
  slowMs?: number
  /** Of the rates: monotonic milliseconds. */
  clock?: () => number
}

/** How this process stands. */
export interface RelayStatus extends SourceState {
  ready: boolean
  /** Why not, in words. */
  problems: string[]
  keys: KeysReport
  hub: HubStats
  /** How often each limit on clients was reached. */
  limits: Counts
  disconnects: DisconnectsReport
}

export interface Relay {
  readonly metrics: Metrics
  /** Checks a token, as for a client. */
  verify: Auth["verify"]
  /** Begins to listen, to read and to fetch keys, and keeps trying. */
  start(): void
  /** Resolves once clients can connect and changes arrive. */
  whenReady(): Promise<void>
  attach(server: Server): void
  status(): RelayStatus
  /** What operations may know, with the tables looked at anew. */
  report(): Promise<Report>
  /** The metrics as Prometheus reads them. */
  exposition(): Promise<string>
  /** Closes clients, then the database. Idempotent. */
  stop(): Promise<void>
}

/** The longest that the issuer of tokens is waited for. */
const MAX_FETCH_MS = 5_000

/** @throws ConfigError if no key for tokens is set. */
export function createRelay({
  settings,
  databaseUrl,
  version,
  log,
  upstream,
  floorMs,
  slowMs,
  clock,
}: RelayDeps): Relay {
  const metrics = createMetrics()
  const keys =
    settings.JWKS_URL === undefined
      ? settledKeys(settings)
      : createJwks({
          url: settings.JWKS_URL,
          refreshMs: settings.JWKS_REFRESH_SECONDS * 1_000,
          // Who brings a token at once has the answer before the time to authenticate is over.
          timeoutMs: Math.min(MAX_FETCH_MS, settings.AUTH_TIMEOUT_SECONDS * 500),
          log,
          metrics,
        })
  const auth = createAuth(keys, settings)
  const changelog = createChangelog(databaseUrl, (error) =>
    log.debug({ event: "idle_connection_lost", error: error.message }),
  )
  const revocations = createRevocations()
  const recent = createReplayBuffer(settings.REPLAY_BUFFER_MB * 1_048_576)
  const history = createLogReads({ changelog, recent, lineage: () => hub.lineage(), log, metrics })
  const hub = createHub({
    log,
    metrics,
    recent,
    history,
    revocations,
    refresh: (timeoutMs) => source.refresh(timeoutMs),
    settings: {
      maxLanes: settings.MAX_LANES,
      laneBufferBytes: settings.LANE_BUFFER_MB * 1_048_576,
      heartbeatMs: settings.HEARTBEAT_SECONDS * 1_000,
      authTimeoutMs: settings.AUTH_TIMEOUT_SECONDS * 1_000,
      maxAgeMs: settings.MAX_CONNECTION_AGE_SECONDS * 1_000 || undefined,
      slowMs,
    },
  })
  const source: Source =
    upstream?.source(hub.consumer) ??
    createSource({ settings, databaseUrl, changelog, consumer: hub.consumer, log, metrics, floorMs })
  const limits = createLimits({ settings, trust: readTrust(settings.TRUST_PROXY), log, metrics, clock })
  const audit = createAudit({ to: settings.AUDIT_LOG, log, metrics })
  const disconnects = createDisconnects()
  const gateway = createGateway({
    hub,
    auth,
    revocations,
    limits,
    audit,
    disconnects,
    log,
    metrics,
    settings: {
      path: settings.WS_PATH,
      allowedOrigins: settings.ALLOWED_ORIGINS,
      queryToken: settings.QUERY_TOKEN,
      maxErrors: settings.MAX_ERRORS,
      heartbeatMs: settings.HEARTBEAT_SECONDS * 1_000,
    },
  })
  const startedAt = performance.now()
  const instance = randomUUID()
  let stopping: Promise<void> | undefined

  metrics.observe("relay_ready", "1 while clients are let in and changes arrive", () =>
    problems().length === 0 ? 1 : 0,
  )
  metrics.observe("relay_connections", "Connections now", () => hub.size().connections)
  metrics.observe("relay_users", "Users with live connections now", () => hub.size().users)
  metrics.observe("relay_addresses", "Client addresses with connections now", limits.addresses)
  metrics.observe("relay_replays", "Connections that are not live yet", () => hub.size().replaying)
  metrics.observe("relay_lanes", "Lanes now", () => hub.size().lanes)
  metrics.observe("relay_queued_bytes", "Bytes handed to sockets and not sent", () => hub.held().sockets)
  metrics.observe("relay_lane_bytes", "Bytes in lanes for who is behind", () => hub.held().lanes)
  metrics.observe("relay_revocations", "Revocations in force", () => revocations.list().length)

  /** What keeps clients away, or changes from them. */
  function problems(): string[] {
    return [
      ...problemsOf(source.state()),
      ...(auth.ready() ? [] : keyProblems(keys.report())),
      ...(stopping === undefined ? [] : ["stopping"]),
    ]
  }

  return {
    metrics,
    verify: async (token) => revocations.judge(await auth.verify(token)),
    start() {
      keys.start()
      source.start()
    },
    async whenReady() {
      while (problems().length > 0 && stopping === undefined)
        await new Promise((resolve) => setTimeout(resolve, 20))
    },
    attach: gateway.attach,
    status() {
      const found = problems()
      return {
        ready: found.length === 0,
        problems: found,
        keys: keys.report(),
        hub: hub.stats(),
        limits: limits.reached(),
        disconnects: disconnects.report(),
        ...source.state(),
      }
    },
    report:
      upstream?.report ??
      (async () => {
        // The report is most wanted when the database is away: it must not wait for it.
        const tables = await source.tables()
        const derived = source.derived()
        const found = new Set([
          ...problems(),
          ...canaryProblems(source.state()),
          ...keyProblems(keys.report()),
          ...derivedProblems(derived),
        ])
        return reportOf({
          problems: [...found],
          version,
          instance,
          startedAt,
          source: source.state(),
          keys: keys.report(),
          hub: hub.stats(),
          limits: limits.reached(),
          revocations: revocations.list().length,
          disconnects: disconnects.report(),
          totals: await totalsOf(metrics),
          tables,
          derived,
        })
      }),
    exposition: upstream?.exposition ?? (() => metrics.registry.metrics()),
    stop() {
      stopping ??= (async () => {
        gateway.stop()
        keys.stop()
        await hub.drain({
          perSecond: settings.DRAIN_RATE || Number.POSITIVE_INFINITY,
          timeoutMs: settings.DRAIN_TIMEOUT_SECONDS * 1_000,
        })
        history.stop()
        await source.stop()
        await changelog.close()
        await audit.close()
      })()
      return stopping
    },
  }
}
