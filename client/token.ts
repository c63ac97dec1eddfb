/** The token: fetched when it is needed, kept while it is good, renewed on the open connection before it expires. */

import { setAlarm } from "./alarm.ts"
import { backoff } from "./backoff.ts"

export interface TokensDeps {
  token: string | undefined
  getToken: (() => string | Promise<string>) | undefined
  /** Sends another token on the open connection. */
  authenticate(token: string): void
  /** A renewal failed, and is tried again. */
  onFailure(error: unknown): void
}

export interface Tokens {
  take(): Promise<string>
  /** The relay took it, and for so long. */
  accepted(expiresInSeconds: number): void
  /** It is of no use any more. */
  spoil(): void
  /** There is no connection to renew it on. */
  pause(): void
}

/** A renewal comes at 75 to 90 % of a token's life, so that those who got theirs together do not return together. */
const EARLIEST = 0.75
const LATEST = 0.9
const SHORTEST_MS = 1_000

export function createTokens({ token, getToken, authenticate, onFailure }: TokensDeps): Tokens {
  let kept = token
  let goodUntil = token === undefined ? 0 : Number.POSITIVE_INFINITY
  let connection = 0
  let cancel = () => {}

  async function fetch(): Promise<string> {
    if (getToken === undefined) throw new Error("there is no getToken to ask")
    kept = await getToken()
    return kept
  }

  async function renew(failures: number): Promise<void> {
    const mine = connection
    try {
      const fresh = await fetch()
      if (mine === connection) authenticate(fresh)
    } catch (error) {
      if (mine !== connection) return
      onFailure(error)
      cancel = setAlarm(backoff(failures, Math.random()), () => void renew(failures + 1))
    }
  }

  return {
    take: async () => (kept !== undefined && Date.now() < goodUntil ? kept : fetch()),
    accepted(expiresInSeconds) {
      if (getToken === undefined) return
      const life = expiresInSeconds * 1_000
      goodUntil = Date.now() + life * LATEST
      const share = EARLIEST + (LATEST - EARLIEST) * Math.random()
      cancel()
      cancel = setAlarm(Math.max(SHORTEST_MS, life * share), () => void renew(0))
    },
    spoil() {
      goodUntil = 0
    },
    pause() {
      connection++
      cancel()
    },
  }
}
