/** Derived messages: functions of the application that are run again when their tables have changed. */

import type { Change } from "../change/change.ts"
import { type Clock, sleep, systemClock } from "../lib/clock.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { type Definition, nameOf } from "./definition.ts"
import type { DerivedReport } from "./report.ts"
import type { Runner } from "./runner.ts"
import { Task } from "./task.ts"
import type { DerivedValues } from "./value.ts"

export interface Derived {
  /** Begins to look for definitions and to compute, and keeps trying. */
  start(): void
  /** These changes were delivered. */
  notice(changes: readonly Change[]): void
  /** Changes may have been missed. */
  recheck(): void
  report(): DerivedReport[]
  stop(): Promise<void>
}

export interface DerivedDeps {
  runner: Runner
  showDerived(set: DerivedValues): void
  log: Log
  metrics: Metrics
  clock?: Clock
}

/** How often to look for definitions that are new or gone. Milliseconds. */
const LOOK_MS = 5_000

export function createDerived({
  runner,
  showDerived,
  log,
  metrics,
  clock = systemClock,
}: DerivedDeps): Derived {
  const closing = new AbortController()
  const tasks = new Map<string, Task>()
  /** What is at work, tasks that have been ended included. */
  const running = new Set<Promise<void>>()

  function track(work: Promise<void>): void {
    const tracked = work.finally(() => running.delete(tracked))
    running.add(tracked)
  }

  function end(name: string, task: Task): void {
    tasks.delete(name)
    task.end()
  }

  function begin(name: string, definition: Definition): void {
    const task = new Task(definition, { runner, showDerived, log, metrics, clock })
    tasks.set(name, task)
    track(task.run())
  }

  /** Begins tasks of definitions that are new or have changed, and ends those whose definitions are gone. */
  async function look(): Promise<void> {
    const found = await runner.definitions()
    if (closing.signal.aborted) return
    const defined = new Map(found.map((definition) => [nameOf(definition), definition]))
    for (const [name, task] of tasks) {
      const definition = defined.get(name)
      if (definition?.definedAt === task.definition.definedAt) continue
      end(name, task)
      if (definition === undefined) showDerived({ name, values: [] })
    }
    for (const [name, definition] of defined) if (!tasks.has(name)) begin(name, definition)
  }

  async function keepLooking(): Promise<void> {
    while (!closing.signal.aborted) {
      await look().catch((error: Error) =>
        log.debug({ event: "derived_unknown", error: error.message }, "the definitions are read again later"),
      )
      await sleep(clock, LOOK_MS, closing.signal)
    }
  }

  return {
    start: () => track(keepLooking()),
    notice(changes) {
      if (tasks.size === 0) return
      const tables = new Set<string>()
      for (const change of changes) if (change.kind !== "message") tables.add(change.table)
      for (const task of tasks.values())
        if (task.definition.tables.some((table) => tables.has(table))) task.touch()
    },
    recheck() {
      for (const task of tasks.values()) task.touch()
    },
    report: () => [...tasks.values()].map((task) => task.report()),
    async stop() {
      closing.abort()
      for (const [name, task] of tasks) end(name, task)
      await Promise.all(running)
      await runner.close()
    },
  }
}
