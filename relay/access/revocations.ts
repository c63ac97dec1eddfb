/** Revocations in force: users and tokens that are refused although the token is good. */

import type { Revocation } from "../change/revocation.ts"
import type { AuthResult, Identity } from "./auth.ts"

export interface Revocations {
  /** These are in force, and no others. */
  begin(all: readonly Revocation[]): void
  learn(news: readonly Revocation[]): void
  refuses(identity: Identity): boolean
  /** Refuses a good token that was revoked. Ask in the same turn of the event loop in which the answer counts. */
  judge(result: AuthResult): AuthResult
  /** Those in force. */
  list(): Revocation[]
}

/** How many that have ended may pile up, beside as many as are in force, before they are removed. */
const SLACK = 1_000

/** Makes an empty set. @param now milliseconds since 1970. */
export function createRevocations(now: () => number = Date.now): Revocations {
  const known = { user: new Map<string, Revocation>(), jti: new Map<string, Revocation>() }
  let sweepAt = SLACK

  const isOver = ({ until }: Revocation) => until !== null && until <= now()

  function sweep(): void {
    for (const revocations of [known.user, known.jti])
      for (const [value, revocation] of revocations) if (isOver(revocation)) revocations.delete(value)
    sweepAt = 2 * (known.user.size + known.jti.size) + SLACK
  }

  function learn(news: readonly Revocation[]): void {
    for (const revocation of news) {
      if (isOver(revocation)) known[revocation.kind].delete(revocation.value)
      else known[revocation.kind].set(revocation.value, revocation)
    }
    if (known.user.size + known.jti.size >= sweepAt) sweep()
  }

  function applies(revocation: Revocation | undefined, { issuedAt }: Identity): boolean {
    if (revocation === undefined || isOver(revocation)) return false
    const { issued_before: before } = revocation
    return before === null || issuedAt === undefined || issuedAt < before
  }

  const refuses = (identity: Identity): boolean =>
    applies(known.user.get(identity.user), identity) ||
    (identity.jti !== undefined && applies(known.jti.get(identity.jti), identity))

  return {
    begin(all) {
      known.user.clear()
      known.jti.clear()
      learn(all)
    },
    learn,
    refuses,
    judge: (result) => (result.ok && refuses(result.identity) ? { ok: false, reason: "revoked" } : result),
    list() {
      sweep()
      return [...known.user.values(), ...known.jti.values()]
    },
  }
}
