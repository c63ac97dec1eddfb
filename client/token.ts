/** The token: fetched when it is needed, kept while it is good, renewed on the open connection before it expires. */

import { backoff } from "./backoff.ts"
import type { Clock } from "./clock.ts"

export interface TokensDeps {
  token: string | undefined
  getToken: (() => string | Promise<string>) | undefined
  clock: Clock
  /** A renewal failed, and is tried again. */
  onFailure(error: unknown): void
}

export interface Tokens {
  /** A good token: the one that is kept, or another. */
  get(): Promise<string>
  /** The relay accepted it for so long. @param authenticate sends another on the same connection. */
  accepted(expiresInSeconds: number, authenticate: (token: string) => void): void
  /** The relay refuses it. */
  invalidate(): void
  /** There is no connection to renew it on. */
  disconnected(): void
}

/** A renewal comes at 75 to 90 % of a token's life, so that clients that started together do not renew together. */
const EARLIEST = 0.75
const LATEST = 0.9
const SHORTEST_MS = 1_000

export function createTokens({ token, getToken, clock, onFailure }: TokensDeps): Tokens {
  let kept = token
  let goodUntil = token === undefined ? 0 : Number.POSITIVE_INFINITY
  let connection = 0
  let cancel = () => {}

  async function fetch(): Promise<string> {
    if (getToken === undefined) throw new Error("there is no getToken to ask")
    kept = await getToken()
    return kept
  }

  async function renew(authenticate: (token: string) => void, failures: number): Promise<void> {
    const mine = connection
    try {
      const fresh = await fetch()
      if (mine === connection) authenticate(fresh)
    } catch (error) {
      if (mine !== connection) return
      onFailure(error)
      const delay = backoff(failures, Math.random())
      cancel = clock.setAlarm(delay, () => void renew(authenticate, failures + 1))
    }
  }

  return {
    get: async () => (kept !== undefined && clock.wall() < goodUntil ? kept : fetch()),
    accepted(expiresInSeconds, authenticate) {
      if (getToken === undefined) return
      const life = expiresInSeconds * 1_000
      goodUntil = clock.wall() + life * LATEST
      const share = EARLIEST + (LATEST - EARLIEST) * Math.random()
      cancel()
      cancel = clock.setAlarm(Math.max(SHORTEST_MS, life * share), () => void renew(authenticate, 0))
    },
    invalidate() {
      goodUntil = 0
    },
    disconnected() {
      connection++
      cancel()
    },
  }
}
