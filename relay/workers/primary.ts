/** The primary: one process that reads the log for several workers, and speaks for all of them. */

import { randomUUID } from "node:crypto"
import type { Duplex } from "node:stream"
import { AggregatorRegistry } from "prom-client"
import { z } from "zod"
import { KeysReport, settledKeys, worstOf } from "../access/keys.ts"
import { createRevocations } from "../access/revocations.ts"
import type { Settings } from "../config.ts"
import { createChangelog } from "../feed/changelog.ts"
import { createSource } from "../feed/source.ts"
import { canaryProblems, derivedProblems, keyProblems, problemsOf } from "../health/readiness.ts"
import { type Report, reportOf } from "../health/report.ts"
import { createTimerLag } from "../lib/timer-lag.ts"
import { Counts, HubStats, sumOf, sumOfCounts, sumOfTotals, Totals, totalsOf } from "../telemetry/counts.ts"
import { DisconnectsReport, sumOfDisconnects } from "../telemetry/disconnects.ts"
import type { Log } from "../telemetry/log.ts"
import { createMetrics } from "../telemetry/metrics.ts"
import { standingOf } from "./feed-message.ts"
import { createForwarder, type Share } from "./forwarder.ts"
import { createIpcChannel, type IpcChannel, lineOf, type Question } from "./ipc.ts"
import { WorkerMessage } from "./upstream.ts"

export interface PrimaryDeps {
  settings: Readonly<Settings>
  databaseUrl: string
  version: string
  /** How many workers there should be. */
  size: number
  log: Log
}

export interface WorkerEvents {
  /** It serves clients. */
  onReady(): void
  /** It cannot be worked with: it is to be ended, if it has not ended. */
  onFailed(reason: "closed" | "stuck"): void
}

export interface Primary {
  /** Begins to listen and to read. */
  start(): void
  /** Takes in a worker. @param stream the pipe to it. */
  admit(pid: number, stream: Duplex, events: WorkerEvents): { stop(): void }
  /** Counts a worker's end. */
  lost(reason: string): void
  /** Ends the reading, once the workers are gone. */
  stop(): Promise<void>
}

/** How often workers are told how the source stands. Milliseconds. */
const STANDING_MS = 250
/** A worker that takes no part of the feed for so long holds up all the others. Milliseconds. */
const STUCK_MS = 15_000
/** How long a worker may take to answer about itself. Milliseconds. */
const ANSWER_MS = 2_000

/** A metric as prom-client tells it; what else there is, it knows itself. */
const Metric = z.looseObject({ name: z.string() })

interface Worker {
  readonly pid: number
  readonly pipe: IpcChannel
  readonly share: Share
  fail(reason: "closed" | "stuck"): void
}

/** What is told where no worker says how it stands. */
const NO_KEYS: KeysReport = {
  source: "jwks",
  known: 0,
  fetched_seconds_ago: null,
  error: "no worker answers",
}

/**
 * Makes it, without workers.
 * @throws ConfigError if the workers could not check any token.
 */
export function createPrimary({ settings, databaseUrl, version, size, log }: PrimaryDeps): Primary {
  // The workers have keys of their own.
  if (settings.JWKS_URL === undefined) settledKeys(settings)
  const metrics = createMetrics()
  const changelog = createChangelog(databaseUrl, (error) =>
    log.debug({ event: "idle_connection_lost", error: error.message }),
  )
  const revocations = createRevocations()
  const forwarder = createForwarder(revocations)
  const source = createSource({
    settings,
    databaseUrl,
    changelog,
    consumer: forwarder.consumer,
    log,
    metrics,
  })
  const workers = new Set<Worker>()
  const startedAt = performance.now()
  const instance = randomUUID()

  // Any of them may be asked, and tells of all.
  metrics.observe(
    "relay_ready",
    "1 while clients are let in and changes arrive",
    () => (problemsOf(source.state()).length === 0 && workers.size === size ? 1 : 0),
    "first",
  )
  // Whoever is connected to two workers is one user, so that this is no sum.
  metrics.observe(
    "relay_users",
    "Users with live connections now",
    async () => Object.keys((await hubs()).sum.users).length,
    "first",
  )
  // Each worker has the same.
  metrics.observe("relay_revocations", "Revocations in force", () => revocations.list().length, "first")
  metrics.observe("relay_workers", "Worker processes now", () => workers.size)

  const timerLag = createTimerLag(STANDING_MS)

  function tellStanding(): void {
    const line = lineOf(standingOf(source.state()))
    const late = timerLag()
    for (const { pipe, share, fail } of workers) {
      pipe.write(line)
      share.excuse(late)
      if (share.stuckFor() > STUCK_MS) fail("stuck")
    }
  }
  const timer = setInterval(tellStanding, STANDING_MS)
  timer.unref()

  /** Asks all workers; those that do not answer are left out. */
  async function askAll<T>(question: Question, schema: z.ZodType<T>): Promise<Array<[Worker, T]>> {
    const answers = await Promise.all(
      [...workers].map(async (worker): Promise<[Worker, T] | undefined> => {
        const answer = schema.safeParse(await worker.pipe.ask(question, ANSWER_MS).catch(() => undefined))
        return answer.success ? [worker, answer.data] : undefined
      }),
    )
    return answers.filter((answer) => answer !== undefined)
  }

  async function hubs() {
    const answers = await askAll("hub", HubStats)
    return { answers, sum: sumOf(answers.map(([, stats]) => stats)) }
  }

  async function report(): Promise<Report> {
    const [tables, { answers, sum }, theirs, limits, disconnects, totals] = await Promise.all([
      source.tables(),
      hubs(),
      askAll("keys", KeysReport),
      askAll("limits", Counts),
      askAll("disconnects", DisconnectsReport),
      askAll("totals", Totals),
    ])
    const keys = worstOf(theirs.map(([, each]) => each)) ?? NO_KEYS
    const missing = size - answers.length
    return reportOf({
      problems: [
        ...problemsOf(source.state()),
        ...canaryProblems(source.state()),
        ...keyProblems(keys),
        ...derivedProblems(source.derived()),
        ...(missing > 0 ? [`${missing} of ${size} workers do not answer`] : []),
      ],
      version,
      instance,
      startedAt,
      source: source.state(),
      keys,
      hub: sum,
      limits: sumOfCounts(limits.map(([, counts]) => counts)),
      revocations: revocations.list().length,
      disconnects: sumOfDisconnects(disconnects.map(([, each]) => each)),
      totals: sumOfTotals([await totalsOf(metrics), ...totals.map(([, each]) => each)]),
      workers: answers.map(([{ pid }, { connections }]) => ({ pid, connections })),
      tables,
      derived: source.derived(),
    })
  }

  async function exposition(): Promise<string> {
    const theirs = await askAll("metrics", Metric.array())
    const own = await metrics.registry.getMetricsAsJSON()
    return AggregatorRegistry.aggregate([own, ...theirs.map(([, each]) => each)]).metrics()
  }

  async function asked(question: Question, timeoutMs: number): Promise<unknown> {
    switch (question) {
      case "refresh":
        return source.refresh(timeoutMs)
      case "report":
        return report()
      case "metrics":
        return exposition()
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
      const fail = (reason: "closed" | "stuck") => {
        if (!workers.delete(worker)) return
        worker.share.end()
        worker.pipe.close()
        events.onFailed(reason)
      }
      const pipe = createIpcChannel({
        stream,
        asked,
        closed(error) {
          if (error !== undefined)
            log.error({ event: "worker_unintelligible", worker: pid, error: error.message })
          fail("closed")
        },
        told(message) {
          const news = WorkerMessage.parse(message)
          if (news.kind === "taken") worker.share.taken()
          else events.onReady()
        },
      })
      const worker: Worker = { pid, pipe, share: forwarder.add(pipe), fail }
      workers.add(worker)
      pipe.write(lineOf(standingOf(source.state())))
      return { stop: () => pipe.tell({ kind: "stop" }) }
    },
    lost: (reason) => metrics.workerExits.inc({ reason }),
    async stop() {
      clearInterval(timer)
      await source.stop()
      await changelog.close()
    },
  }
}
