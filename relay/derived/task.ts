/**
 * A task keeps one derived message current: it runs the function when its tables have changed, at most once an interval
 * and never twice at once, and after a while in any case, because a bulk load shows in no log.
 */

import { backoff } from "../lib/backoff.ts"
import { type Clock, sleep } from "../lib/clock.ts"
import { Wakeup } from "../lib/wakeup.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { type Definition, nameOf, type ReturnedRow } from "./definition.ts"
import type { DerivedReport } from "./report.ts"
import type { Runner } from "./runner.ts"
import type { DerivedValue, DerivedValues } from "./value.ts"

export interface TaskDeps {
  runner: Pick<Runner, "run">
  showDerived(set: DerivedValues): void
  log: Log
  metrics: Metrics
  clock: Clock
}

/** At most a quarter of the time is spent on one function: it rests for this many times what it took. */
const REST_FACTOR = 3

export class Task {
  readonly definition: Definition
  readonly #deps: TaskDeps
  readonly #ended = new AbortController()
  /** One of its tables has changed since the last run began, or that run failed. */
  readonly #due: Wakeup
  #values = 0
  #computedAt: number | undefined
  #tookMs: number | undefined
  #error: string | undefined

  constructor(definition: Definition, deps: TaskDeps) {
    this.definition = definition
    this.#deps = deps
    this.#due = new Wakeup(deps.clock)
    for (const result of ["done", "failed"]) deps.metrics.derived.inc({ type: definition.type, result }, 0)
  }

  /** One of its tables has changed, or may have. */
  touch(): void {
    this.#due.wake()
  }

  /** Keeps it current. Resolves once it is ended. */
  async run(): Promise<void> {
    const { clock } = this.#deps
    const { maxMs } = this.definition
    const { signal } = this.#ended
    let failures = 0
    while (!signal.aborted) {
      const beganAt = clock.now()
      const done = await this.#compute(beganAt)
      if (signal.aborted) return
      failures = done ? 0 : failures + 1
      const restMs = this.#restMs(clock.now() - beganAt, failures)
      await sleep(clock, restMs, signal)
      if (!signal.aborted) await this.#due.wait(Math.max(0, maxMs - restMs))
    }
  }

  /** Its values stay as they are. */
  end(): void {
    this.#ended.abort()
    this.#due.wake()
  }

  report(): DerivedReport {
    const { type, channel, function: name } = this.definition
    const ago = this.#computedAt === undefined ? undefined : this.#deps.clock.now() - this.#computedAt
    return {
      type,
      channel,
      function: name,
      values: this.#values,
      computed_seconds_ago: ago === undefined ? null : Math.round(ago / 100) / 10,
      took_ms: this.#tookMs === undefined ? null : Math.round(this.#tookMs * 10) / 10,
      error: this.#error ?? null,
    }
  }

  /** One run. @returns whether it succeeded. */
  async #compute(beganAt: number): Promise<boolean> {
    const { runner, metrics, clock, showDerived } = this.#deps
    const { type } = this.definition
    try {
      const values = valuesOf(this.definition, await runner.run(this.definition))
      if (this.#ended.signal.aborted) return true
      this.#values = values.length
      this.#computedAt = beganAt
      this.#tookMs = clock.now() - beganAt
      this.#error = undefined
      metrics.derived.inc({ type, result: "done" })
      metrics.derivation.observe(this.#tookMs / 1_000)
      showDerived({ name: nameOf(this.definition), values })
      return true
    } catch (error) {
      if (!this.#ended.signal.aborted) this.#fail((error as Error).message)
      return false
    }
  }

  #fail(error: string): void {
    const { log, metrics } = this.#deps
    const { type, function: name } = this.definition
    metrics.derived.inc({ type, result: "failed" })
    if (this.#error !== error)
      log.warn(
        { event: "derived_failed", type, function: name, error },
        "a derived message cannot be computed",
      )
    this.#error = error
    // Its values may be wrong by now, so it runs again even if nothing changes.
    this.#due.wake()
  }

  #restMs(tookMs: number, failures: number): number {
    const retryMs = failures === 0 ? 0 : backoff(failures - 1)
    return Math.max(this.definition.minMs, REST_FACTOR * tookMs, retryMs)
  }
}

function valuesOf({ type, channel, action }: Definition, returned: readonly ReturnedRow[]): DerivedValue[] {
  const at = new Date().toISOString()
  return returned.flatMap(({ id, data }) =>
    data === null ? [] : [{ type, action, channel: id === null ? channel : `${channel}:${id}`, data, at }],
  )
}
