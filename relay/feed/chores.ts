/** Chores: what a relay does for the log now and then: it rotates it, and looks at the tables and at its size. */

import type { Settings } from "../config.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Changelog, TrackedTable } from "./changelog.ts"

export interface Chores {
  /** Does them at once, and again and again. */
  start(): void
  /** The tracked tables, looked at anew; as they were known if the database does not answer. */
  tables(): Promise<TrackedTable[]>
  stop(): void
}

export interface ChoresDeps {
  changelog: Pick<Changelog, "rotate" | "tracked" | "size">
  settings: Readonly<Pick<Settings, "RETENTION_HOURS" | "RETENTION_MB">>
  log: Log
  metrics: Metrics
}

const INTERVAL_MS = 30_000

export function createChores({ changelog, settings, log, metrics }: ChoresDeps): Chores {
  let tables: TrackedTable[] = []
  let logBytes = 0
  let timer: NodeJS.Timeout | undefined

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

  async function checkTables(): Promise<void> {
    const found = await changelog.tracked()
    for (const { name, problem } of found) {
      const known = tables.find((table) => table.name === name)?.problem
      if (problem !== null && problem !== known)
        log.warn({ event: "table_problem", table: name, problem }, "the capture of a table is incomplete")
    }
    tables = found
  }

  async function run(): Promise<void> {
    try {
      await rotate()
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
      void run()
      timer = setInterval(run, INTERVAL_MS)
      timer.unref()
    },
    async tables() {
      await checkTables().catch(() => {})
      return tables
    },
    stop: () => clearInterval(timer),
  }
}
