/** Health: how this process stands, for probes, metrics and operations. */

import { randomUUID } from "node:crypto"
import type { Auth } from "../access/auth.ts"
import type { Keys, KeysReport } from "../access/keys.ts"
import type { Revocations } from "../access/revocations.ts"
import type { Source, SourceState } from "../feed/source.ts"
import type { Limits } from "../gateway/limits.ts"
import type { HubCounter } from "../hub/stats.ts"
import { type Counts, type HubStats, totalsOf } from "../telemetry/counts.ts"
import type { Disconnects, DisconnectsReport } from "../telemetry/disconnects.ts"
import type { LogOutput } from "../telemetry/log-output.ts"
import type { Metrics } from "../telemetry/metrics.ts"

import { keyProblems, problemsOf, reportProblems } from "./readiness.ts"

import { type Report, reportOf } from "./report.ts"

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

export interface Health {
  /** What keeps clients away, or changes from them, in words. */
  problems(): string[]
  status(): RelayStatus
  /** What operations may know, with the tables looked at anew. */
  report(): Promise<Report>
  /** The relay is not ready from now on. */
  stop(): void
}

export interface HealthDeps {
  version: string
  source: Source
  auth: Auth
  keys: Keys
  revocations: Revocations
  counter: HubCounter
  limits: Limits
  disconnects: Disconnects
  metrics: Metrics
  logOutput: LogOutput | undefined
}

export function createHealth(deps: HealthDeps): Health {
  const { version, source, auth, keys, revocations, counter, limits, disconnects, metrics, logOutput } = deps
  const startedAt = performance.now()
  const instance = randomUUID()
  let stopping = false

  const problems = (): string[] => [
    ...problemsOf(source.state()),
    ...(auth.ready() ? [] : keyProblems(keys.report())),
    ...(stopping ? ["stopping"] : []),
  ]

  const standing = () => ({
    keys: keys.report(),
    hub: counter.stats(),
    limits: limits.reached(),
    disconnects: disconnects.report(),
  })

  const allProblems = (): string[] => [
    ...new Set([
      ...problems(),
      ...reportProblems({
        source: source.state(),
        keys: keys.report(),
        derived: source.derived(),
        logLoss: logOutput?.lost,
      }),
    ]),
  ]

  observe(deps, problems, allProblems)

  return {
    problems,
    status() {
      const found = problems()
      return { ready: found.length === 0, problems: found, ...standing(), ...source.state() }
    },
    async report() {
      // The report is most wanted when the database is away: it must not wait for it.
      const tables = await source.tables()
      const derived = source.derived()
      return reportOf({
        problems: allProblems(),
        version,
        instance,
        startedAt,
        source: source.state(),
        ...standing(),
        revocations: revocations.list().length,
        totals: await totalsOf(metrics),
        tables,
        derived,
      })
    },
    stop() {
      stopping = true
    },
  }
}

/** The gauges of this process. */
function observe(
  { metrics, counter, limits, revocations }: HealthDeps,
  problems: () => readonly string[],
  allProblems: () => readonly string[],
): void {
  metrics.observe("relay_ready", "1 while clients are let in and changes arrive", () =>
    problems().length === 0 ? 1 : 0,
  )
  metrics.observe("relay_problems", "Problems that the report names now", () => allProblems().length)
  metrics.observe("relay_connections", "Connections now", () => counter.size().connections)
  metrics.observe("relay_users", "Users with live connections now", () => counter.size().users)
  metrics.observe("relay_addresses", "Client addresses with connections now", limits.addresses)
  metrics.observe("relay_replays", "Connections that are not live yet", () => counter.size().replaying)
  metrics.observe("relay_lanes", "Lanes now", () => counter.size().lanes)
  metrics.observe("relay_queued_bytes", "Bytes handed to sockets and not sent", () => counter.held().sockets)
  metrics.observe("relay_lane_bytes", "Bytes in lanes for who is behind", () => counter.held().lanes)
  metrics.observe("relay_revocations", "Revocations in force", () => revocations.list().length)
}
