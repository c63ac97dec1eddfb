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
  /** Whether the last one came from getToken and was never accepted. */
  isFresh(): boolean
  /** The relay accepted it for so long. @param authenticate sends another on the same connection. */
  accepted(token: string, expiresInSeconds: number, authenticate: (token: string) => void): void
  /** The relay cannot take the renewed one now. */
  postponed(): void
  /** The relay refuses it. The one before, if that is still good, has its place. */
  invalidate(): void
  /** There is no connection to renew it on. */
  disconnected(): void
}

/** A renewal comes at 75 to 90 % of a token's life, so that clients that started together do not renew together. */
const EARLIEST = 0.75
const LATEST = 0.9
const SHORTEST_MS = 1_000
/** What a subprotocol may be made of, among which are all characters of a token. */
const SENDABLE = /^[\w.~+-]+$/
const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/

/** What came instead of a token, without a word of it: it may be a secret all the same. */
function nameOf(answer: unknown): string {
  if (typeof answer !== "string") return answer === null ? "null" : `a value of the type ${typeof answer}`
  if (answer === "") return "an empty text"
  if (SENDABLE.test(answer)) return "a text that is no JWT"
  return /^\s*</.test(answer)
    ? "a page of HTML"
    : "a text with characters that no token has, such as a line break"
}

const wrong = (answer: unknown) =>
  new Error(`getToken gave ${nameOf(answer)}: let it return the token alone, and throw where it has none`)

export function createTokens({ token, getToken, clock, onFailure }: TokensDeps): Tokens {
  let kept = token
  let goodUntil = token === undefined ? 0 : Number.POSITIVE_INFINITY
  /** The last one that was accepted. */
  let good = { token, until: 0 }
  let asking: Promise<string> | undefined
  /** Whether the kept one is of getToken, and the relay has not accepted it yet. */
  let unproven = false
  let connection = 0
  let failures = 0
  let authenticate = (_token: string) => {}
  let cancel = () => {}

  async function call(): Promise<string> {
    if (getToken === undefined) throw new Error("there is no getToken to ask")
    const answer: unknown = await getToken()
    if (typeof answer !== "string" || !SENDABLE.test(answer)) throw wrong(answer)
    kept = answer
    unproven = true
    return answer
  }

  /** One call at a time: whoever asks meanwhile gets its answer. */
  function ask(): Promise<string> {
    if (asking !== undefined) return asking
    const mine = call()
    const done = () => {
      asking = undefined
    }
    asking = mine
    mine.then(done, done)
    return mine
  }

  async function renew(): Promise<void> {
    const mine = connection
    try {
      const fresh = await ask()
      if (mine !== connection) return
      // The relay would end a connection that is good.
      if (!JWT.test(fresh)) throw wrong(fresh)
      authenticate(fresh)
    } catch (error) {
      if (mine !== connection) return
      onFailure(error)
      renewLater()
    }
  }

  function renewLater(): void {
    cancel()
    cancel = clock.setAlarm(backoff(failures++, Math.random()), () => void renew())
  }

  return {
    get: async () => (kept !== undefined && clock.wall() < goodUntil ? kept : ask()),
    isFresh: () => unproven,
    accepted(its, expiresInSeconds, send) {
      if (getToken === undefined) return
      const life = expiresInSeconds * 1_000
      unproven = false
      goodUntil = clock.wall() + life * LATEST
      good = { token: its, until: clock.wall() + life }
      authenticate = send
      failures = 0
      const share = EARLIEST + (LATEST - EARLIEST) * Math.random()
      cancel()
      cancel = clock.setAlarm(Math.max(SHORTEST_MS, life * share), () => void renew())
    },
    postponed: renewLater,
    invalidate() {
      const before = kept === good.token ? { token: undefined, until: 0 } : good
      kept = before.token
      unproven = false
      goodUntil = before.until
    },
    disconnected() {
      connection++
      cancel()
    },
  }
}
