/**
 * The canary: a row that the relay writes to the log and must read again. A log that hides its rows, behind a policy for
 * example, looks to the feed like one in which nothing happens.
 */

import { randomUUID } from "node:crypto"
import { z } from "zod"
import { type Clock, sleep, systemClock } from "../lib/clock.ts"
import { reasonOf } from "../lib/refusal.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Changelog } from "./changelog.ts"

/** Times are monotonic milliseconds. */
export const CanaryState = z.object({
  /** When the last one came back. */
  provenAt: z.number().nullable(),
  /** When the oldest of those was written that have not come back yet. */
  waitingSince: z.number().nullable(),
  /** Why the last one could not be written. */
  error: z.string().nullable(),
  /** Since when none could. */
  failingSince: z.number().nullable(),
})
export type CanaryState = z.infer<typeof CanaryState>

export interface Canary {
  start(): void
  /** These were read. */
  receive(canaries: readonly string[]): void
  state(): CanaryState
  stop(): Promise<void>
}

export interface CanaryDeps {
  changelog: Pick<Changelog, "writeCanary">
  log: Log
  metrics: Metrics
  /** The time between two, in milliseconds; with 0 none is written. */
  intervalMs: number
  clock?: Clock
}

/** The next one follows so soon while one is missing: it may have been lost with a position. Milliseconds. */
const AGAIN_MS = 2_000

export function createCanary({
  changelog,
  log,
  metrics,
  intervalMs,
  clock = systemClock,
}: CanaryDeps): Canary {
  const name = randomUUID()
  const closing = new AbortController()
  /** Those that have not come back, by when they were written. */
  const waiting = new Map<string, number>()
  let provenAt: number | null = null
  let error: string | null = null
  let failingSince: number | null = null
  let count = 0
  let running: Promise<void> | undefined

  async function write(): Promise<void> {
    const canary = `${name}:${++count}`
    // It may be read before its own statement has answered.
    waiting.set(canary, clock.now())
    try {
      const written = await changelog.writeCanary(canary)
      if (!written) waiting.delete(canary)
      error = null
      failingSince = null
      metrics.canaries.inc({ result: written ? "written" : "not_allowed" })
    } catch (thrown) {
      waiting.delete(canary)
      const reason = reasonOf(thrown)
      if (error === null)
        log.warn({ event: "canary_failed", error: reason }, "the relay cannot write to the log")
      error = reason
      failingSince ??= clock.now()
      metrics.canaries.inc({ result: "failed" })
    }
  }

  async function run(): Promise<void> {
    const { signal } = closing
    const again = Math.min(AGAIN_MS, intervalMs)
    while (!signal.aborted) {
      await write()
      await sleep(clock, again, signal)
      if (waiting.size === 0 && error === null) await sleep(clock, intervalMs - again, signal)
    }
  }

  return {
    start() {
      if (intervalMs > 0) running ??= run()
    },
    receive(canaries) {
      for (const canary of canaries) {
        const writtenAt = waiting.get(canary)
        if (writtenAt === undefined) continue
        provenAt = clock.now()
        metrics.canaryReturn.observe((provenAt - writtenAt) / 1_000)
        // Earlier ones that have not come back were lost with a position.
        waiting.clear()
      }
    },
    state: () => ({ provenAt, waitingSince: waiting.values().next().value ?? null, error, failingSince }),
    async stop() {
      closing.abort()
      await running
    },
  }
}
