/** The relay of one process, wired: what reads the log, what fans out, and what serves clients. */

import type { IncomingMessage, Server, ServerResponse } from "node:http"
import { type Auth, createAuth } from "./access/auth.ts"
import { createJwks } from "./access/jwks.ts"
import { type Keys, settledKeys } from "./access/keys.ts"
import { createRevocations } from "./access/revocations.ts"
import type { Settings } from "./config.ts"
import type { Connection } from "./fanout/connection.ts"
import { createRouter } from "./fanout/router.ts"
import { createChangelog } from "./feed/changelog.ts"
import { createSource } from "./feed/source.ts"
import { createUnreadable } from "./feed/unreadable.ts"
import { createAudit } from "./gateway/audit.ts"
import { createGateway } from "./gateway/gateway.ts"
import { createLimits } from "./gateway/limits.ts"
import { createHealth, type RelayStatus } from "./health/health.ts"
import type { Report } from "./health/report.ts"
import { createDerivedBoard } from "./hub/derived-board.ts"
import { drain } from "./hub/drain.ts"
import { createHub } from "./hub/hub.ts"
import { createLive } from "./hub/live.ts"
import { createMembership } from "./hub/membership.ts"
import { createHubCounter } from "./hub/stats.ts"
import { startSweep } from "./hub/sweep.ts"
import { readTrust } from "./lib/client-address.ts"
import { systemClock } from "./lib/clock.ts"
import { createLogReads } from "./replay/log-reads.ts"
import { Position } from "./replay/position.ts"
import { createReplays } from "./replay/replay.ts"
import { createReplayBuffer } from "./replay/replay-buffer.ts"
import { createDisconnects } from "./telemetry/disconnects.ts"
import type { Log } from "./telemetry/log.ts"
import type { LogOutput } from "./telemetry/log-output.ts"
import { createMetrics, type Metrics, observeLoss } from "./telemetry/metrics.ts"
import type { Upstream } from "./workers/upstream.ts"

export interface RelayDeps {
  settings: Readonly<Settings>
  databaseUrl: string
  version: string
  log: Log
  /** Where the log's lines go, if it is to say what is lost of them. */
  logOutput?: LogOutput
  /** Reads the log for this relay and others; without one it does so itself. */
  upstream?: Upstream
  /** How often the log is read where no bell rings and no lease is in force, in milliseconds; 1,000 by default. */
  floorMs?: number
  /** How long a socket may take nothing although something waits, in milliseconds; 10,000 by default. */
  slowMs?: number
  /** Of the rates: monotonic milliseconds. */
  clock?: () => number
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
  /** Answers a plain request for the socket's path, which wants to know why no upgrade comes about. @returns false if it is for another. */
  answer(request: IncomingMessage, response: ServerResponse): boolean
  /** A socket was closed unread, since there is no file descriptor to spare. */
  droppedSocket(): void
  status(): RelayStatus
  /** What operations may know, with the tables looked at anew. */
  report(): Promise<Report>
  /** The metrics as Prometheus reads them. */
  exposition(): Promise<string>
  /** Closes clients, then the database. Idempotent. */
  stop(): Promise<void>
}

const MEGABYTE = 1_048_576
/** How long a request for the issuer's keys may take at most. */
const MAX_FETCH_MS = 5_000

/** @throws ConfigError if no key for tokens is set. */
export function createRelay(deps: RelayDeps): Relay {
  const { settings, upstream } = deps
  const relay = wire(deps)
  const { metrics, keys, auth, revocations, source, gateway, health } = relay
  let stopping: Promise<void> | undefined

  async function stop(): Promise<void> {
    gateway.stop()
    keys.stop()
    await drain(relay.connections, {
      perSecond: settings.DRAIN_RATE || Number.POSITIVE_INFINITY,
      timeoutMs: settings.DRAIN_TIMEOUT_SECONDS * 1_000,
    })
    relay.sweep.stop()
    relay.logReads.stop()
    await source.stop()
    await relay.changelog.close()
    await relay.audit.close()
    gateway.detach()
  }

  return {
    metrics,
    verify: async (token) => revocations.judge(await auth.verify(token)),
    start() {
      keys.start()
      source.start()
    },
    async whenReady() {
      while (health.problems().length > 0 && stopping === undefined)
        await new Promise((resolve) => setTimeout(resolve, 20))
    },
    attach: gateway.attach,
    answer: gateway.answer,
    droppedSocket: () => relay.limits.record("descriptors"),
    status: health.status,
    report: upstream?.report ?? health.report,
    exposition: upstream?.exposition ?? (() => metrics.registry.metrics()),
    stop() {
      health.stop()
      stopping ??= stop()
      return stopping
    },
  }
}

/** Makes each part out of those before it: what checks tokens, fans out, reads the log, and serves clients. */
function wire({
  settings,
  databaseUrl,
  version,
  log,
  logOutput,
  upstream,
  floorMs,
  slowMs,
  clock,
}: RelayDeps) {
  const laneBufferBytes = settings.LANE_BUFFER_MB * MEGABYTE
  const heartbeatMs = settings.HEARTBEAT_SECONDS * 1_000

  const metrics = createMetrics()
  observeLoss(metrics, logOutput)
  const disconnects = createDisconnects()
  const keys = createKeys(settings, log, metrics)
  const auth = createAuth(keys, settings)
  const revocations = createRevocations()
  const unreadable = createUnreadable({ log, metrics })
  const changelog = createChangelog(
    databaseUrl,
    (error) => log.debug({ event: "idle_connection_lost", error: error.message }),
    unreadable.note,
  )

  const connections = new Set<Connection>()
  const router = createRouter()
  const derivedBoard = createDerivedBoard(router)
  const position = new Position()
  const buffer = createReplayBuffer(settings.REPLAY_BUFFER_MB * MEGABYTE)
  const live = createLive({ router, derivedBoard, position })
  const shared = {
    log,
    metrics,
    revocations,
    connections,
    router,
    position,
    buffer,
    live,
    clock: systemClock,
  }
  const consumer = createHub({
    ...shared,
    derivedBoard,
    laneBufferBytes,
    allLanesBytes: settings.ALL_LANES_BUFFER_MB * MEGABYTE,
  })
  const source =
    upstream?.source(consumer) ??
    createSource({ settings, changelog, unreadable, consumer, log, metrics, floorMs })

  const logReads = createLogReads({ ...shared, changelog })
  const replays = createReplays({ ...shared, logReads, source })
  const membership = createMembership({ ...shared, replays, maxLanes: settings.MAX_LANES })
  const sweep = startSweep({
    ...shared,
    replays,
    settings: {
      laneBufferBytes,
      heartbeatMs,
      authTimeoutMs: settings.AUTH_TIMEOUT_SECONDS * 1_000,
      maxAgeMs: settings.MAX_CONNECTION_AGE_SECONDS * 1_000 || undefined,
      slowMs,
    },
  })

  const limits = createLimits({ settings, trust: readTrust(settings.TRUST_PROXY), log, metrics, clock })
  const audit = createAudit({ to: settings.AUDIT_LOG, log, metrics })
  const gateway = createGateway({
    hub: membership,
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
      allowedHosts: settings.ALLOWED_HOSTS,
      queryToken: settings.QUERY_TOKEN,
      maxErrors: settings.MAX_ERRORS,
      heartbeatMs,
    },
  })
  const counter = createHubCounter({ connections, router, replays })
  const health = createHealth({
    ...shared,
    version,
    source,
    auth,
    keys,
    counter,
    limits,
    disconnects,
    logOutput,
  })
  return { ...shared, keys, auth, changelog, source, logReads, sweep, audit, gateway, limits, health }
}

/** Keys from the settings, or from the issuer of tokens. */
function createKeys(settings: Readonly<Settings>, log: Log, metrics: Metrics): Keys {
  if (settings.JWKS_URL === undefined) return settledKeys(settings)
  return createJwks({
    url: settings.JWKS_URL,
    refreshMs: settings.JWKS_REFRESH_SECONDS * 1_000,
    // A client that sends its token at once has its answer before the time to authenticate is over.
    timeoutMs: Math.min(MAX_FETCH_MS, settings.AUTH_TIMEOUT_SECONDS * 500),
    log,
    metrics,
  })
}
