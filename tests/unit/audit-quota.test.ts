/** The quota of the audit log, second by second. */

import t from "tap"
import type { AuditEvent } from "../../relay/gateway/audit-event.ts"
import { createAuditQuota } from "../../relay/gateway/audit-quota.ts"

const REFUSED: AuditEvent = { event: "token_refused", reason: "invalid" }
const CLOSED: AuditEvent = { event: "closed", code: 1000, reason: "", by: "client", openMs: 1 }

function start() {
  let now = 1_000_000
  const quota = createAuditQuota(() => now)
  return {
    quota,
    pass(ms: number) {
      now += ms
    },
    /** How many of a hundred lines are allowed. */
    allowed: (address: (n: number) => string, user?: string) =>
      Array.from({ length: 100 }, (_, n) => ({ address: address(n), ...(user !== undefined && { user }) }))
        .map((subject) => quota.allows(subject, REFUSED))
        .filter(Boolean).length,
  }
}

t.test("one address without a token has five lines at once, and one a second", (t) => {
  const { allowed, pass } = start()
  t.equal(
    allowed(() => "192.0.2.1"),
    5,
  )
  pass(1_000)
  t.equal(
    allowed(() => "192.0.2.1"),
    1,
  )
  t.end()
})

t.test("all addresses without a token have fifty lines at once, and ten a second", (t) => {
  const { allowed, pass } = start()
  t.equal(
    allowed((n) => `192.0.2.${n}`),
    50,
  )
  pass(1_000)
  t.equal(
    allowed((n) => `198.51.100.${n}`),
    10,
  )
  t.end()
})

t.test("an address that floods takes no lines from the others", (t) => {
  const { allowed } = start()
  allowed(() => "192.0.2.1")
  t.equal(
    allowed((n) => `198.51.100.${n}`),
    45,
  )
  t.end()
})

t.test("a user has lines of its own, wherever it comes from", (t) => {
  const { allowed } = start()
  allowed((n) => `192.0.2.${n}`)
  t.equal(
    allowed((n) => `192.0.2.${n}`, "7"),
    25,
  )
  t.equal(
    allowed((n) => `192.0.2.${n}`, "8"),
    25,
  )
  t.end()
})

t.test("coming in is always allowed, and leaving after it, once", (t) => {
  const { quota, allowed } = start()
  const connection = { address: "192.0.2.1", user: "7" }
  allowed(() => "192.0.2.1", "7")
  t.notOk(quota.allows(connection, CLOSED))
  t.ok(quota.allows(connection, { event: "connected", channels: [], expiresAt: 0 }))
  t.notOk(quota.allows(connection, REFUSED))
  t.ok(quota.allows(connection, CLOSED))
  t.notOk(quota.allows(connection, CLOSED))
  t.end()
})
