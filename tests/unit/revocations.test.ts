/** The set of revocations: whom it refuses, until when, and that it does not grow by what is over. */

import t from "tap"
import type { Identity } from "../../relay/access/auth.ts"
import { createRevocations } from "../../relay/access/revocations.ts"
import type { Revocation } from "../../relay/change/revocation.ts"

const bearer = (user: string, more: Partial<Identity> = {}): Identity => ({
  user,
  admin: false,
  rights: { committees: null, elections: null, channels: null, roles: new Set() },
  expiresAt: 0,
  ...more,
})
const revocation = (of: Partial<Revocation>): Revocation => ({
  kind: "user",
  value: "7",
  until: null,
  issued_before: null,
  ...of,
})

const CASES: [what: string, revocation: Revocation, identity: Identity, refused: boolean][] = [
  ["the user", revocation({}), bearer("7"), true],
  ["another user", revocation({}), bearer("70"), false],
  ["a user named as the jti", revocation({ kind: "jti" }), bearer("7"), false],
  ["a jti named as the user", revocation({}), bearer("8", { jti: "7" }), false],
  ["the jti", revocation({ kind: "jti" }), bearer("8", { jti: "7" }), true],
  ["until it is over", revocation({ until: 1_001 }), bearer("7"), true],
  ["no longer", revocation({ until: 1_000 }), bearer("7"), false],
  ["issued before", revocation({ issued_before: 500 }), bearer("7", { issuedAt: 499 }), true],
  ["issued then", revocation({ issued_before: 500 }), bearer("7", { issuedAt: 500 }), false],
  ["issued nobody knows when", revocation({ issued_before: 500 }), bearer("7"), true],
  ["what every object has", revocation({ value: "__proto__" }), bearer("__proto__"), true],
  ["what every object has, not revoked", revocation({}), bearer("toString"), false],
]

t.test("whom a revocation refuses", async (t) => {
  for (const [what, of, identity, refused] of CASES) {
    for (const way of ["begin", "learn"] as const) {
      const revocations = createRevocations(() => 1_000)
      revocations[way]([of])
      t.equal(revocations.refuses(identity), refused, `${what}, by ${way}`)
      t.match(
        revocations.judge({ ok: true, identity }),
        refused ? { ok: false, reason: "revoked" } : { ok: true },
      )
    }
  }
  t.same(createRevocations().judge({ ok: false, reason: "expired" }), { ok: false, reason: "expired" })
})

t.test("time passes, the last word counts, and a beginning leaves nothing of before", async (t) => {
  let now = 1_000
  const revocations = createRevocations(() => now)
  revocations.learn([revocation({ until: 2_000 })])
  now = 1_999
  t.ok(revocations.refuses(bearer("7")))
  now = 2_000
  t.notOk(revocations.refuses(bearer("7")))
  t.same(revocations.list(), [])
  revocations.learn([revocation({}), revocation({ until: 0 })])
  t.notOk(revocations.refuses(bearer("7")))
  revocations.learn([revocation({ until: 0 }), revocation({ until: 3_000 })])
  t.ok(revocations.refuses(bearer("7")))
  revocations.begin([revocation({ value: "8" })])
  t.notOk(revocations.refuses(bearer("7")))
  t.ok(revocations.refuses(bearer("8")))
})

t.test("what is over takes no room, though nobody asks for it", async (t) => {
  let now = 0
  let looks = 0
  const revocations = createRevocations(() => {
    looks++
    return now
  })
  for (; now < 100_000; now++) revocations.learn([revocation({ value: String(now), until: now + 1_000 })])
  looks = 0
  t.equal(revocations.list().length, 999)
  t.ok(looks <= 5_000, `it held ${looks}`)
})
