/**
 * Chores: what a relay does for the log now and then. It rotates it, keeps the code that fills it fast, looks at its size,
 * and watches the tables: what it may mend it mends, and the rest is a problem that health shows.
 */

import type { Settings } from "../config.ts"
import { type Clock, sleep, systemClock } from "../lib/clock.ts"
import { reasonOf } from "../lib/refusal.ts"
import { Standing, type StandingProblem } from "../lib/standing.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Changelog, TrackedTable } from "./changelog.ts"

export interface Chores {
  /** Does them at once, and again and again. */
  start(): void
  /** The tracked tables, looked at anew; as they were known if the database does not answer. */
  tables(): Promise<TrackedTable[]>
  /** What is wrong with the capture and the log, and with the chores themselves. */
  problems(): StandingProblem[]
  stop(): Promise<void>
}

export interface ChoresDeps {
  changelog: Pick<Changelog, "rotate" | "renew" | "watch" | "mend" | "tracked" | "oddities" | "size">
  settings: Readonly<Pick<Settings, "RETENTION_HOURS" | "RETENTION_MB">>
  log: Log
  metrics: Metrics
  clock?: Clock
}

/** Between two looks whether tables were attached, detached or dropped. Milliseconds. */
const WATCH_MS = 5_000
/** All of them are done at every so many of these looks. */
const WATCHES = 6

const FAILURES = {
  rotate: "the log cannot be rotated",
  renew: "the code of the capture cannot be made anew",
  watch: "the tables cannot be watched",
  tables: "the tracked tables cannot be looked at",
  mend: "the capture cannot be mended",
  size: "the size of the log cannot be looked at",
}
type Chore = keyof typeof FAILURES
const CHORES_OF_A_CHANGE: readonly Chore[] = ["tables", "mend"]

/** What is wrong with the capture, and what to do, by name. */
function problemsOf(tables: readonly TrackedTable[], paused: boolean, strays: readonly string[]) {
  const found = new Map<string, string>()
  if (paused) return found.set("", "the capture is paused and nothing is sent: select relay.resume()")
  if (tables.length === 0)
    found.set("", "no table is tracked, so that nothing is sent: commitcast track <table>")
  for (const { name, problem } of tables) if (problem !== null) found.set(name, `${name}: ${problem}`)
  for (const name of strays)
    found.set(
      `stray ${name}`,
      `${name}: it has triggers of a tracking that is gone: commitcast track ${name}, with all its options, or commitcast untrack ${name}`,
    )
  return found
}

export function createChores({ changelog, settings, log, metrics, clock = systemClock }: ChoresDeps): Chores {
  const closing = new AbortController()
  const standing = new Standing()
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
    const { paused, strays } = await changelog.oddities()
    standing.replace("capture ", problemsOf(tables, paused, strays))
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
  async function attempt(chore: Chore, work = works[chore]): Promise<void> {
    if (closing.signal.aborted) return
    try {
      await work()
      standing.clear(`chore ${chore}`)
    } catch (error) {
      if (closing.signal.aborted) return
      const reason = reasonOf(error)
      metrics.choresFailed.inc({ chore })
      if (standing.note(`chore ${chore}`, `${FAILURES[chore]}: ${reason}`))
        log.warn({ event: "chores_failed", chore, error: reason }, "a chore is tried again later")
    }
  }

  const checkSize = async () => {
    logBytes = await changelog.size()
  }
  const works: Record<Chore, () => Promise<unknown>> = {
    rotate,
    renew,
    watch,
    tables: checkTables,
    mend,
    size: checkSize,
  }
  const CHORES = Object.keys(works) as Chore[]

  async function doAll(): Promise<void> {
    for (const chore of CHORES) await attempt(chore)
  }

  /** What has failed is tried again as well, so that a problem that is over is soon known to be. */
  async function doWatch(): Promise<void> {
    const failed = CHORES.filter((chore) => chore !== "watch" && standing.has(`chore ${chore}`))
    let changed = false
    await attempt("watch", async () => {
      changed = await watch()
    })
    for (const chore of changed ? CHORES_OF_A_CHANGE : failed) await attempt(chore)
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
      await attempt("tables")
      return tables
    },
    problems: () => standing.list(),
    async stop() {
      closing.abort()
      await running
    },
  }
}
