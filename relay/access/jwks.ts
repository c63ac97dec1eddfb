/**
 * The keys that an issuer publishes: fetched now and then, and at once for an unknown key, but no more often than the
 * cooldown allows. Known keys stay in force while the issuer does not answer.
 */

import { backoff } from "../lib/backoff.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { download, isHopeless, keysFor, namesOf, readKeySet } from "./key-set.ts"
import type { Key, Keys } from "./keys.ts"

export interface JwksDeps {
  url: string
  /** How often the keys are fetched. Milliseconds. */
  refreshMs: number
  /** How long a fetch may take. Milliseconds. */
  timeoutMs: number
  log: Log
  metrics: Metrics
}

/** The time between two fetches for unknown keys, so that made-up `kid`s cannot make the relay ask. Milliseconds. */
const COOLDOWN_MS = 10_000

export function createJwks({ url, refreshMs, timeoutMs, log, metrics }: JwksDeps): Keys {
  let keys: readonly Key[] = []
  /** Monotonic milliseconds. */
  let fetchedAt: number | undefined
  /** When it last fetched for an unknown key. */
  let askedAt = Number.NEGATIVE_INFINITY
  let failures = 0
  let error: string | undefined
  let stopped = false
  let cut = new AbortController()
  let underWay: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined

  /** @returns when to do it again. Milliseconds. */
  async function fetchKeys(): Promise<number> {
    cut = new AbortController()
    // AbortSignal.timeout would do, but joined with another it may be collected in Node 20, and never come.
    const late = setTimeout(() => cut.abort(new Error("the issuer does not answer in time")), timeoutMs)
    try {
      const found = readKeySet(await download(url, cut.signal))
      metrics.keyFetches.inc({ result: "done" })
      if (error !== undefined || namesOf(found) !== namesOf(keys))
        log.info({ event: "keys_fetched", keys: found.length }, "the issuer's keys are known")
      keys = found
      fetchedAt = performance.now()
      error = undefined
      failures = 0
      return refreshMs
    } catch (cause) {
      if (stopped) return refreshMs
      const delay = backoff(failures)
      error = reasonOf(cause)
      failures++
      metrics.keyFetches.inc({ result: "failed" })
      log.warn(
        {
          event: "keys_not_fetched",
          known: keys.length,
          attempt: failures,
          retry_in_ms: Math.round(delay),
          error,
        },
        "the issuer's keys cannot be fetched",
      )
      return delay
    } finally {
      clearTimeout(late)
    }
  }

  function refresh(): Promise<void> {
    underWay ??= fetchKeys().then((delay) => {
      underWay = undefined
      clearTimeout(timer)
      if (!stopped) timer = setTimeout(refresh, delay).unref()
    })
    return underWay
  }

  /** @returns false if there can be no answer now. A fetch that failed is tried again by itself. */
  async function ask(): Promise<boolean> {
    if (underWay === undefined) {
      if (error !== undefined || performance.now() - askedAt < COOLDOWN_MS) return false
      askedAt = performance.now()
    }
    await refresh()
    return error === undefined
  }

  return {
    async find(hint) {
      const now = keysFor(hint, keys)
      if (now.length > 0) return { kind: "known", keys: now }
      if (isHopeless(hint, keys)) return { kind: "unknown" }
      const answered = !stopped && (await ask())
      const then = keysFor(hint, keys)
      if (then.length > 0) return { kind: "known", keys: then }
      return { kind: answered ? "unknown" : "unavailable" }
    },
    report: () => ({
      source: "jwks",
      known: keys.length,
      fetched_seconds_ago:
        fetchedAt === undefined ? null : Math.round((performance.now() - fetchedAt) / 1_000),
      error: error ?? null,
    }),
    start: () => void refresh(),
    stop() {
      stopped = true
      cut.abort()
      clearTimeout(timer)
    },
  }
}

/** fetch only says "fetch failed". The reason is in the cause, and after several attempts only in its code. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { cause } = error
  if (!(cause instanceof Error)) return error.message
  return cause.message || (cause as NodeJS.ErrnoException).code || error.message
}
