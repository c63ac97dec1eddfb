/**
 * Derived messages: functions of the application that are run again when their tables have changed. Each at most once
 * an interval, never twice at once, and after a while in any case, because a bulk load under the flag shows in no log.
 */

import { setTimeout as sleep } from "node:timers/promises"
import pg from "pg"
import { z } from "zod"
import type { Change } from "../change/change.ts"
import { backoff } from "../lib/backoff.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { DEFINITIONS, Definition, Value } from "./definition.ts"
import type { DerivedValue, DerivedValues } from "./value.ts"

/** How a derived message stands. */
export const DerivedReport = z.object({
  type: z.string(),
  channel: z.string(),
  function: z.string(),
  /** What it has now: one for each id that the function returns. */
  figures: z.number(),
  /** Null until it was computed once. */
  computed_seconds_ago: z.number().nullable(),
  took_ms: z.number().nullable(),
  error: z.string().nullable(),
})
export type DerivedReport = z.infer<typeof DerivedReport>

export interface Derived {
  /** Begins to look for definitions and to compute, and keeps trying. */
  start(): void
  /** These changes were delivered. */
  notice(changes: readonly Change[]): void
  /** Changes may have been missed. */
  doubt(): void
  report(): DerivedReport[]
  stop(): Promise<void>
}

export interface DerivedDeps {
  connectionString: string
  show(set: DerivedValues): void
  log: Log
  metrics: Metrics
}

/** How often it is looked for definitions that are new or gone. Milliseconds. */
const LOOK_MS = 5_000
/** A function that takes longer is cancelled. Milliseconds. */
const TIMEOUT_MS = 5_000
/** At most a quarter of the time is spent on one function: it rests for this many times what it took. */
const REST = 3
/** At most so many values of one function, and so many characters each. */
const MAX_VALUES = 1_000
/** What is kept current. */
interface Task {
  readonly definition: Definition
  readonly gone: AbortController
  /** Something has changed since the last run began. */
  dirty: boolean
  /** Runs it before its time, if it waits for something to happen. */
  wake: () => void
  figures: number
  computedAt: number | undefined
  tookMs: number | undefined
  error: string | undefined
}

export function createDerived({ connectionString, show, log, metrics }: DerivedDeps): Derived {
  const pool = new pg.Pool({
    connectionString,
    // One that is slow leaves room for the others.
    max: 2,
    application_name: "commitcast derived",
    query_timeout: TIMEOUT_MS * 2,
    connectionTimeoutMillis: TIMEOUT_MS * 2,
  })
  pool.on("error", (error) => log.debug({ event: "idle_connection_lost", error: error.message }))
  const closing = new AbortController()
  const tasks = new Map<string, Task>()
  const running = new Set<Promise<void>>()

  function touch(concerns: (definition: Definition) => boolean): void {
    for (const task of tasks.values()) {
      if (task.dirty || !concerns(task.definition)) continue
      task.dirty = true
      task.wake()
    }
  }

  async function run({ type, channel }: Definition): Promise<unknown[]> {
    const client = await pool.connect()
    // The query that is running rejects; nobody else listens to a client that is not idle, and it would end the process.
    const ignore = () => {}
    client.on("error", ignore)
    try {
      await client.query(`begin transaction read only; set local statement_timeout = ${TIMEOUT_MS}`)
      const { rows } = await client.query("select id, data from relay.derive($1, $2) limit $3", [
        type,
        channel,
        MAX_VALUES + 1,
      ])
      await client.query("commit")
      client.release()
      return rows
    } catch (error) {
      client.release(true)
      throw error
    } finally {
      client.off("error", ignore)
    }
  }

  async function compute(definition: Definition): Promise<DerivedValue[]> {
    const { type, channel, action } = definition
    const values = Value.array().parse(await run(definition))
    if (values.length > MAX_VALUES) throw new Error(`the function returned more than ${MAX_VALUES} values`)
    const at = new Date().toISOString()
    return values.flatMap(({ id, data }) =>
      data === null ? [] : [{ type, action, channel: id === null ? channel : `${channel}:${id}`, data, at }],
    )
  }

  /** Waits for a change of its tables, but for so long at most. */
  async function whenDirty(task: Task, ms: number): Promise<void> {
    if (task.dirty) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      task.wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    task.wake = () => {}
  }

  async function keepCurrent(name: string, task: Task): Promise<void> {
    const { type, minMs, maxMs } = task.definition
    const { signal } = task.gone
    for (let failures = 0; !signal.aborted; ) {
      task.dirty = false
      const began = performance.now()
      let rest: number
      try {
        const figures = await compute(task.definition)
        if (signal.aborted) return
        const tookMs = performance.now() - began
        Object.assign(task, { figures: figures.length, computedAt: began, tookMs, error: undefined })
        metrics.derived.inc({ type, result: "done" })
        metrics.derivation.observe(tookMs / 1_000)
        failures = 0
        rest = Math.max(minMs, REST * tookMs)
        show({ name, figures })
      } catch (error) {
        if (signal.aborted) return
        const message = reasonOf(error)
        metrics.derived.inc({ type, result: "failed" })
        if (task.error !== message)
          log.warn(
            { event: "derived_failed", type, function: task.definition.function, error: message },
            "a derived message cannot be computed",
          )
        task.error = message
        // What stands may be wrong by now, and is tried anew whatever happens.
        task.dirty = true
        rest = Math.max(minMs, REST * (performance.now() - began), backoff(failures++))
      }
      await sleep(rest, undefined, { signal }).catch(() => {})
      if (!signal.aborted) await whenDirty(task, Math.max(0, maxMs - rest))
    }
  }

  function begin(name: string, definition: Definition): void {
    const task: Task = {
      definition,
      gone: new AbortController(),
      dirty: true,
      wake: () => {},
      figures: 0,
      computedAt: undefined,
      tookMs: undefined,
      error: undefined,
    }
    tasks.set(name, task)
    for (const result of ["done", "failed"]) metrics.derived.inc({ type: definition.type, result }, 0)
    const work = keepCurrent(name, task).finally(() => running.delete(work))
    running.add(work)
  }

  function end(name: string, task: Task): void {
    tasks.delete(name)
    task.gone.abort()
    task.wake()
  }

  /** Takes up definitions that are new, or made anew, and lets go of those that are gone. */
  async function look(): Promise<void> {
    const found = Definition.array().parse((await pool.query(DEFINITIONS)).rows)
    if (closing.signal.aborted) return
    const names = new Map(found.map((definition) => [`${definition.type} ${definition.channel}`, definition]))
    for (const [name, task] of tasks) {
      const definition = names.get(name)
      if (definition?.definedAt === task.definition.definedAt) continue
      end(name, task)
      if (definition === undefined) show({ name, figures: [] })
    }
    for (const [name, definition] of names) if (!tasks.has(name)) begin(name, definition)
  }

  async function keepLooking(): Promise<void> {
    while (!closing.signal.aborted) {
      await look().catch((error: Error) =>
        log.debug({ event: "derived_unknown", error: error.message }, "the definitions are read again later"),
      )
      await sleep(LOOK_MS, undefined, { signal: closing.signal }).catch(() => {})
    }
  }

  return {
    start() {
      const work = keepLooking().finally(() => running.delete(work))
      running.add(work)
    },
    notice(changes) {
      if (tasks.size === 0) return
      const tables = new Set<string>()
      for (const change of changes) if (change.kind !== "message") tables.add(change.table)
      if (tables.size > 0) touch((definition) => definition.tables.some((table) => tables.has(table)))
    },
    doubt: () => touch(() => true),
    report: () =>
      [...tasks.values()].map(({ definition, figures, computedAt, tookMs, error }) => ({
        type: definition.type,
        channel: definition.channel,
        function: definition.function,
        figures,
        computed_seconds_ago:
          computedAt === undefined ? null : Math.round((performance.now() - computedAt) / 100) / 10,
        took_ms: tookMs === undefined ? null : Math.round(tookMs * 10) / 10,
        error: error ?? null,
      })),
    async stop() {
      closing.abort()
      for (const [name, task] of tasks) end(name, task)
      await Promise.all(running)
      await pool.end()
    },
  }
}

/** In one line, with nothing of the data in it: PostgreSQL puts values into some of its messages, and never into the code. */
function reasonOf(error: unknown): string {
  if (error instanceof z.ZodError) return error.issues[0]?.message ?? "the function returned something else"
  if (!(error instanceof pg.DatabaseError)) return (error as Error).message
  if (error.code === "57014") return `it took more than ${TIMEOUT_MS / 1_000} s`
  return `PostgreSQL refused it (${error.code}): run it in psql to see why`
}
