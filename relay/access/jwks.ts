/**
 * The keys that an issuer publishes (JWKS, RFC 7517): fetched now and then, and at once for a key that is not known here,
 * but no more often than the cooldown allows. What is known stays in force while the issuer cannot be asked.
 */

import { createPublicKey, type KeyObject } from "node:crypto"
import { z } from "zod"
import { backoff } from "../lib/backoff.ts"
import { readJson } from "../lib/json.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { type Key, type KeyHint, type Keys, pinKey } from "./keys.ts"

export interface JwksDeps {
  url: string
  /** How often the keys are fetched. Milliseconds. */
  refreshMs: number
  /** How long a fetch may take. Milliseconds. */
  timeoutMs: number
  log: Log
  metrics: Metrics
}

/** Two fetches for keys that are not known are never closer: whoever makes up `kid`s cannot make the relay ask. Milliseconds. */
const COOLDOWN_MS = 10_000
/** Key sets have some KiB. */
const MAX_BYTES = 262_144

export function createJwks({ url, refreshMs, timeoutMs, log, metrics }: JwksDeps): Keys {
  let keys: readonly Key[] = []
  /** By the clock that is never set, in milliseconds. */
  let fetchedAt: number | undefined
  /** The last fetch for a key that was not known. */
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

  /** A token without a `kid` is checked if there is no choice. */
  function known({ alg, kid }: KeyHint): readonly Key[] {
    const fitting = keys.filter(({ algorithm }) => algorithm === alg)
    if (kid !== undefined) return fitting.filter(({ id }) => id === kid)
    return fitting.length === 1 ? fitting : []
  }

  /** Another fetch would not find it either: there are no such keys, or it is known what they are. */
  const isHopeless = ({ alg, kid }: KeyHint) =>
    (alg !== "RS256" && alg !== "ES256") ||
    (kid === undefined ? keys.length > 0 : keys.some(({ id }) => id === kid))

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
      const now = known(hint)
      if (now.length > 0) return { kind: "known", keys: now }
      if (isHopeless(hint)) return { kind: "unknown" }
      const answered = !stopped && (await ask())
      const then = known(hint)
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

const namesOf = (keys: readonly Key[]): string =>
  JSON.stringify(keys.map(({ id, algorithm }) => [id ?? null, algorithm]))

/** @throws if there is no answer, or none that is meant. It is not looked for elsewhere. */
async function download(url: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, {
    headers: { accept: "application/jwk-set+json, application/json" },
    redirect: "error",
    signal,
  })
  const body = response.body ?? []
  if (response.status !== 200) {
    await response.body?.cancel()
    throw new Error(`the issuer answers ${response.status}`)
  }
  const pieces: Uint8Array[] = []
  let size = 0
  for await (const piece of body) {
    size += piece.length
    if (size > MAX_BYTES) throw new Error(`the issuer answers more than ${MAX_BYTES} bytes`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces).toString()
}

const KeySet = z.object({ keys: z.array(z.unknown()) })

/** A key to check signatures with. Secrets, private keys and keys for other uses are none. */
const SigningKey = z.object({
  kty: z.enum(["RSA", "EC"]),
  kid: z.string().max(256).optional(),
  alg: z.enum(["RS256", "ES256"]).optional(),
  use: z.literal("sig").optional(),
  key_ops: z
    .array(z.string())
    .refine((uses) => uses.includes("verify"))
    .optional(),
  n: z.string().optional(),
  e: z.string().optional(),
  crv: z.string().optional(),
  x: z.string().optional(),
  y: z.string().optional(),
  d: z.undefined().optional(),
})

/** The keys of a set that can be used; the others are left out. @throws if there is none. */
function readKeySet(text: string): readonly Key[] {
  const set = KeySet.safeParse(readJson(text))
  if (!set.success) throw new Error("the issuer's answer is no key set")
  const keys = set.data.keys.map(readSigningKey).filter((key) => key !== undefined)
  if (keys.length === 0) throw new Error("the issuer's key set has no key for RS256 or ES256")
  return keys
}

function readSigningKey(jwk: unknown): Key | undefined {
  const { data } = SigningKey.safeParse(jwk)
  if (data === undefined) return undefined
  const { kty, n, e, crv, x, y, kid, alg } = data
  const key = importKey(kty === "RSA" ? { kty, n, e } : { kty, crv, x, y })
  const pinned = key === undefined ? undefined : pinKey(kid, key)
  return alg === undefined || alg === pinned?.algorithm ? pinned : undefined
}

function importKey(jwk: Record<string, string | undefined>): KeyObject | undefined {
  try {
    return createPublicKey({ key: jwk, format: "jwk" })
  } catch {
    return undefined
  }
}

/** fetch says no more than "fetch failed"; why stands in the cause, of several attempts in its code alone. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { cause } = error
  if (!(cause instanceof Error)) return error.message
  return cause.message || (cause as NodeJS.ErrnoException).code || error.message
}
