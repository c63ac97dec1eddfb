/** One report, and one set of metrics, of the primary and its workers. */

import { AggregatorRegistry } from "prom-client"
import { z } from "zod"
import { KeysReport, worstOf } from "../access/keys.ts"
import type { Revocations } from "../access/revocations.ts"
import type { Source } from "../feed/source.ts"

import { reportProblems } from "../health/readiness.ts"

import { type Report, reportOf } from "../health/report.ts"
import { Counts, HubStats, sumOf, sumOfCounts, sumOfTotals, Totals, totalsOf } from "../telemetry/counts.ts"
import { DisconnectsReport, sumOfDisconnects } from "../telemetry/disconnects.ts"
import type { LogOutput } from "../telemetry/log-output.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { WorkerPool } from "./worker-pool.ts"

export interface JointReportDeps {
  version: string
  instance: string
  /** Monotonic milliseconds. */
  startedAt: number
  /** How many workers there should be. */
  size: number
  source: Source
  revocations: Revocations
  pool: WorkerPool
  metrics: Metrics
  logOutput: LogOutput | undefined
}

/** A metric as prom-client writes it, which knows the rest of it itself. */
const Metric = z.looseObject({ name: z.string() })

/** Where no worker says how its keys stand. */
const NO_KEYS: KeysReport = {
  source: "jwks",
  known: 0,
  fetched_seconds_ago: null,
  error: "no worker answers",
}

/** What all processes together report. Workers that do not answer in time are missing, and that is a problem of its own. */
export async function jointReport(deps: JointReportDeps): Promise<Report> {
  const { version, instance, startedAt, source, revocations, pool, metrics } = deps
  const [tables, hubs, theirKeys, limits, disconnects, totals] = await Promise.all([
    source.tables(),
    pool.askAll("hub", HubStats),
    pool.askAll("keys", KeysReport),
    pool.askAll("limits", Counts),
    pool.askAll("disconnects", DisconnectsReport),
    pool.askAll("totals", Totals),
  ])
  const keys = worstOf(answersOf(theirKeys)) ?? NO_KEYS
  return reportOf({
    problems: problemsOf(deps, keys, hubs.length),
    version,
    instance,
    startedAt,
    source: source.state(),
    keys,
    hub: sumOf(answersOf(hubs)),
    limits: sumOfCounts(answersOf(limits)),
    revocations: revocations.list().length,
    disconnects: sumOfDisconnects(answersOf(disconnects)),
    totals: sumOfTotals([await totalsOf(metrics), ...answersOf(totals)]),
    workers: hubs.map(({ pid, answer }) => ({ pid, connections: answer.connections })),
    tables,
    derived: source.derived(),
  })
}

/** The problems of that report, without a look at the database. */
export async function jointProblems(deps: JointReportDeps): Promise<string[]> {
  const answers = await deps.pool.askAll("keys", KeysReport)
  return problemsOf(deps, worstOf(answersOf(answers)) ?? NO_KEYS, answers.length)
}

function problemsOf(
  { source, size, logOutput }: JointReportDeps,
  keys: KeysReport,
  answering: number,
): string[] {
  const missing = size - answering
  return [
    ...reportProblems({ source: source.state(), keys, derived: source.derived(), logLoss: logOutput?.lost }),
    ...(missing > 0 ? [`${missing} of ${size} workers do not answer`] : []),
  ]
}

/** The metrics of all processes, as Prometheus reads them. */
export async function jointMetrics({
  pool,
  metrics,
}: Pick<JointReportDeps, "pool" | "metrics">): Promise<string> {
  const theirs = await pool.askAll("metrics", Metric.array())
  const own = await metrics.registry.getMetricsAsJSON()
  return AggregatorRegistry.aggregate([own, ...answersOf(theirs)]).metrics()
}

const answersOf = <T>(all: ReadonlyArray<{ answer: T }>): T[] => all.map(({ answer }) => answer)
