/**
 * Chores: what a relay does for the log now and then. It rotates it, keeps the code that fills it fast, looks at its size,
 * and watches the tables: what it may mend it mends, and the rest is a problem that health shows.
 */

import type { Settings } from "../config.ts"
import { type Clock, sleep, systemClock } from "../lib/clock.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Changelog, TrackedTable } from "./changelog.ts"

export interface Chores {
  /** Does them at once, and again and again. */
  start(): void
  /** The tracked tables, looked at anew; as they were known if the database does not answer. */
  tables(): Promise<TrackedTable[]>
  stop(): Promise<void>
}

export interface ChoresDeps {
  changelog: Pick<Changelog, "rotate" | "renew" | "watch" | "mend" | "tracked" | "size">
  settings: Readonly<Pick<Settings, "RETENTION_HOURS" | "RETENTION_MB">>
  log: Log
  metrics: Metrics
  clock?: Clock
}

/** Between two looks whether tables were attached, detached or dropped. Milliseconds. */
const WATCH_MS = 5_000
/** All of them are done at every so many of these looks. */
const WATCHES = 6

export function createChores({ changelog, settings, log, metrics, clock = systemClock }: ChoresDeps): Chores {
  const closing = new AbortController()
  let tables: TrackedTable[] = []
  let logBytes = 0
  let running: Promise<void> | undefined

  metrics.observe("relay_log_bytes", "Size of the changelog, looked at each 30 s", () => logBytes)
  metrics.observe(
    "relay_log_limit_bytes",
    "The size from which the changelog is rotated early",
    () => settings.RETENTION_MB * 1_048_576,
  )
  metrics.observe(
    "relay_tables_with_problems",
    "Tracked tables whose capture is incomplete",
    () => tables.filter((table) => table.problem !== null).length,
  )

  async function rotate(): Promise<void> {
    const result = await changelog.rotate(settings.RETENTION_HOURS, settings.RETENTION_MB)
    if (result === "not_due") return
    metrics.rotations.inc({ result })
    log.info({ event: "rotation", result }, "rotation of the changelog")
  }

  async function renew(): Promise<void> {
    const count = await changelog.renew()
    if (count > 0) log.info({ event: "capture_renewed", count }, "the code of tracked tables was made anew")
  }

  async function checkTables(): Promise<void> {
    const found = await changelog.tracked()
    for (const { name, problem } of found) {
      const known = tables.find((table) => table.name === name)?.problem
      if (problem !== null && problem !== known)
        log.warn({ event: "table_problem", table: name, problem }, "the capture of a table is incomplete")
    }
    tables = found
  }

  async function mend(): Promise<void> {
    let mended = 0
    for (const { name, problem } of tables) {
      if (problem === null || (await changelog.mend(name)) === null) continue
      mended++
      log.info({ event: "table_mended", table: name, problem }, "the capture of a table was mended")
    }
    if (mended > 0) await checkTables()
  }

  /** @returns whether anything was found. */
  async function watch(): Promise<boolean> {
    const names = await changelog.watch()
    for (const name of names)
      log.info({ event: "table_tree_changed", table: name }, "clients of a table load it again")
    return names.length > 0
  }

  /** One that fails does not keep the others from being done. */
  async function attempt(chore: string, work: () => Promise<unknown>): Promise<void> {
    if (closing.signal.aborted) return
    try {
      await work()
    } catch (error) {
      if (closing.signal.aborted) return
      log.warn(
        { event: "chores_failed", chore, error: (error as Error).message },
        "a chore is tried again later",
      )
    }
  }

  async function checkAndMend(): Promise<void> {
    await attempt("tables", checkTables)
    await attempt("mend", mend)
  }

  async function doAll(): Promise<void> {
    await attempt("rotate", rotate)
    await attempt("renew", renew)
    await attempt("watch", watch)
    await checkAndMend()
    await attempt("size", async () => {
      logBytes = await changelog.size()
    })
  }

  async function doWatch(): Promise<void> {
    await attempt("watch", async () => {
      if (await watch()) await checkAndMend()
    })
  }

  async function run(): Promise<void> {
    for (let look = 0; !closing.signal.aborted; look++) {
      await (look % WATCHES === 0 ? doAll() : doWatch())
      await sleep(clock, WATCH_MS, closing.signal)
    }
  }

  return {
    start() {
      running ??= run()
    },
    async tables() {
      await checkTables().catch(() => {})
      return tables
    },
    async stop() {
      closing.abort()
      await running
    },
  }
}
