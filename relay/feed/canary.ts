/**
 * The canary: a row that the relay writes to the log and must read again. A log that hides rows, such as behind a policy,
 * looks to the feed like one in which nothing happens.
 */

import { randomUUID } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { z } from "zod"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { Changelog } from "./changelog.ts"

/** Times are of the clock that is never set, in milliseconds. */
export const CanaryState = z.object({
  /** When one came back last. */
  provenAt: z.number().nullable(),
  /** When the oldest was written of those that should come back and have not. */
  waitingSince: z.number().nullable(),
  /** Why the last could not be written. */
  error: z.string().nullable(),
})
export type CanaryState = z.infer<typeof CanaryState>

export interface Canary {
  start(): void
  /** These were read. */
  heard(canaries: readonly string[]): void
  state(): CanaryState
  stop(): Promise<void>
}

export interface CanaryDeps {
  changelog: Changelog
  log: Log
  metrics: Metrics
  /** The time between two; 0: there is none. Milliseconds. */
  intervalMs: number
}

/** While one is waited for, which a position may have been lost with, others follow. Milliseconds. */
const AGAIN_MS = 2_000

export function createCanary({ changelog, log, metrics, intervalMs }: CanaryDeps): Canary {
  const name = randomUUID()
  const closing = new AbortController()
  /** When each was written that is waited for. */
  const waiting = new Map<string, number>()
  let provenAt: number | null = null
  let error: string | null = null
  let count = 0
  let running: Promise<void> | undefined

  async function sing(): Promise<void> {
    const canary = `${name}:${++count}`
    // It may be read before its own statement has answered.
    waiting.set(canary, performance.now())
    try {
      const written = await changelog.sing(canary)
      if (!written) waiting.delete(canary)
      error = null
      metrics.canaries.inc({ result: written ? "written" : "not_allowed" })
    } catch (thrown) {
      waiting.delete(canary)
      const { message } = thrown as Error
      if (error === null)
        log.warn({ event: "canary_failed", error: message }, "the relay cannot write to the log")
      error = message
      metrics.canaries.inc({ result: "failed" })
    }
  }

  async function run(): Promise<void> {
    const pause = (ms: number) => sleep(ms, undefined, { signal: closing.signal }).catch(() => {})
    const again = Math.min(AGAIN_MS, intervalMs)
    while (!closing.signal.aborted) {
      await sing()
      await pause(again)
      if (waiting.size === 0) await pause(intervalMs - again)
    }
  }

  return {
    start() {
      if (intervalMs > 0) running ??= run()
    },
    heard(canaries) {
      for (const canary of canaries) {
        const writtenAt = waiting.get(canary)
        if (writtenAt === undefined) continue
        provenAt = performance.now()
        metrics.canaryReturn.observe((provenAt - writtenAt) / 1_000)
        // Those before it that have not come were lost with a position.
        waiting.clear()
      }
    },
    state: () => ({ provenAt, waitingSince: waiting.values().next().value ?? null, error }),
    async stop() {
      closing.abort()
      await running
    },
  }
}
