/** The quota of the audit log: a flood of clients does not become a flood of lines. */

import { Rate, TokenBuckets } from "../lib/token-bucket.ts"
import type { AuditEvent, AuditSubject } from "./audit-event.ts"

/** Lines a second: of all who have shown no token, of one address of theirs, and of a user beside coming and going. */
const STRANGERS_RATE = 10
const ADDRESS_RATE = 1
const USER_RATE = 5

export interface AuditQuota {
  /** Whether an event gets a line of its own. That a client came in with a token always does, and that it left. */
  allows(subject: AuditSubject, event: AuditEvent): boolean
}

export function createAuditQuota(clock = () => performance.now()): AuditQuota {
  const strangers = new Rate(STRANGERS_RATE)
  let strangersWholeAt = 0
  const addresses = new TokenBuckets(new Rate(ADDRESS_RATE))
  const users = new TokenBuckets(new Rate(USER_RATE))
  const connected = new WeakSet<AuditSubject>()

  return {
    allows(subject, { event }) {
      if (event === "connected") connected.add(subject)
      if (event === "connected" || (event === "closed" && connected.delete(subject))) return true
      const now = clock()
      if (subject.user) return users.take(subject.user, now)
      if (addresses.waitMs(subject.address, now) > 0) return false
      const wholeAt = strangers.take(strangersWholeAt, now)
      if (wholeAt === undefined) return false
      strangersWholeAt = wholeAt
      return addresses.take(subject.address, now)
    },
  }
}
