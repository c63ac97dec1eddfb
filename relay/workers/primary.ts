/** The primary: the one process that reads the log for several workers, and reports for all of them. */

import { randomUUID } from "node:crypto"
import type { Duplex } from "node:stream"
import { settledKeys } from "../access/keys.ts"
import { createRevocations } from "../access/revocations.ts"
import type { Settings } from "../config.ts"
import { createChangelog } from "../feed/changelog.ts"
import { createSource } from "../feed/source.ts"
import { createUnreadable } from "../feed/unreadable.ts"
import { problemsOf } from "../health/readiness.ts"
import { HubStats, sumOf } from "../telemetry/counts.ts"
import type { Log } from "../telemetry/log.ts"
import type { LogOutput } from "../telemetry/log-output.ts"
import { createMetrics, observeLoss } from "../telemetry/metrics.ts"
import { statusOf } from "./feed-message.ts"
import { createForwarder } from "./forwarder.ts"
import type { Question } from "./ipc.ts"
import { jointMetrics, jointProblems, jointReport } from "./joint-report.ts"
import { createWorkerPool, type WorkerEvents } from "./worker-pool.ts"

export interface PrimaryDeps {
  settings: Readonly<Settings>
  databaseUrl: string
  version: string
  /** How many workers there should be. */
  size: number
  log: Log
  logOutput?: LogOutput
}

export interface Primary {
  /** Begins to listen and to read. */
  start(): void
  /** Takes in a worker. @param stream the socket that it inherited the other end of. */
  admit(pid: number, stream: Duplex, events: WorkerEvents): { stop(): void }
  /** Counts a worker's end. */
  lost(reason: string): void
  /** Stops reading, once the workers are gone. */
  stop(): Promise<void>
}

/**
 * Makes it, without workers.
 * @throws ConfigError if the workers could not check any token.
 */
export function createPrimary({
  settings,
  databaseUrl,
  version,
  size,
  log,
  logOutput,
}: PrimaryDeps): Primary {
  // The workers have keys of their own.
  if (settings.JWKS_URL === undefined) settledKeys(settings)
  const metrics = createMetrics()
  observeLoss(metrics, logOutput)
  const unreadable = createUnreadable({ log, metrics })
  const changelog = createChangelog(
    databaseUrl,
    (error) => log.debug({ event: "idle_connection_lost", error: error.message }),
    unreadable.note,
  )
  const revocations = createRevocations()
  const forwarder = createForwarder(revocations)
  const { consumer } = forwarder
  const source = createSource({ settings, changelog, unreadable, consumer, log, metrics })
  const pool = createWorkerPool({ forwarder, status: () => statusOf(source.state()), log })
  const all = {
    version,
    instance: randomUUID(),
    startedAt: performance.now(),
    size,
    source,
    revocations,
    pool,
    metrics,
    logOutput,
  }

  // Any process may be asked for the metrics, and answers for all.
  metrics.observe(
    "relay_ready",
    "1 while clients are let in and changes arrive",
    () => (problemsOf(source.state()).length === 0 && pool.size() === size ? 1 : 0),
    "first",
  )
  metrics.observe(
    "relay_problems",
    "Problems that the report names now",
    async () => (await jointProblems(all)).length,
    "first",
  )
  // A user who is connected to two workers is one user, so this is no sum.
  metrics.observe(
    "relay_users",
    "Users with live connections now",
    async () => {
      const hubs = await pool.askAll("hub", HubStats)
      return Object.keys(sumOf(hubs.map(({ answer }) => answer)).users).length
    },
    "first",
  )
  // Each worker has the same.
  metrics.observe("relay_revocations", "Revocations in force", () => revocations.list().length, "first")
  metrics.observe("relay_workers", "Worker processes now", pool.size)

  async function onQuestion(question: Question, timeoutMs: number): Promise<unknown> {
    switch (question) {
      case "refresh":
        return source.refresh(timeoutMs)
      case "report":
        return jointReport(all)
      case "metrics":
        return jointMetrics(all)
      case "hub":
      case "keys":
      case "limits":
      case "disconnects":
      case "totals":
        return null
    }
  }

  return {
    start: source.start,
    admit(pid, stream, events) {
      const { send } = pool.admit(pid, stream, { ...events, onQuestion })
      return { stop: () => send({ kind: "stop" }) }
    },
    lost: (reason) => metrics.workerExits.inc({ reason }),
    async stop() {
      pool.stop()
      await source.stop()
      await changelog.close()
    },
  }
}
