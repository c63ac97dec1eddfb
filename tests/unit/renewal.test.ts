/** A renewed token counts from one moment on, with its rights and its end together; until then the old one does. */

import t from "tap"
import { buildHub, identity as identityOf } from "../helpers/hub.ts"

function identity(expiresAt: number, committees: string[] | null) {
  const rights = {
    committees: committees && new Set(committees),
    elections: null,
    channels: null,
    roles: new Set<string>(),
  }
  return identityOf({ rights, expiresAt })
}

const OLD = identity(1_000, null)
const NEW = identity(2_000, ["1"])

/** A hub in the middle of a batch, and somebody who came before it. */
async function inBatch() {
  const hub = buildHub()
  const { connection, codes } = hub.connect(OLD)
  hub.membership.join(connection, new Set(["committee:1", "committee:2"]), undefined, () => {})
  await hub.deliver(11, { final: false })
  return { ...hub, connection, closed: codes }
}

t.test("in the middle of a batch the old token counts, and ends, as long as its rights do", async (t) => {
  const { membership, deliver, connection, closed } = await inBatch()
  const told: Array<ReadonlySet<string>> = []
  t.equal(
    membership.reauthorise(connection, NEW, (channels) => told.push(channels)),
    true,
  )
  t.match(connection.identity, { expiresAt: OLD.expiresAt, rights: OLD.rights })
  t.same(told, [], "no answer before it counts")
  await deliver(12, { first: false })
  t.match(connection.identity, { expiresAt: NEW.expiresAt, rights: NEW.rights })
  t.same(closed, [])
  t.strictSame(told, [new Set(["committee:1"])], "what is not allowed any more has ended")
})

t.test("a renewal for which there is no room changes nothing", async (t) => {
  const { membership, deliver, connection } = await inBatch()
  while (
    membership.rejoin(
      connection,
      (channels) => channels,
      undefined,
      () => {},
    )
  );
  t.equal(
    membership.reauthorise(connection, NEW, () => t.fail("it was refused")),
    false,
  )
  t.match(connection.identity, { expiresAt: OLD.expiresAt, rights: OLD.rights })
  await deliver(12, { first: false })
  t.match(connection.identity, { expiresAt: OLD.expiresAt, rights: OLD.rights })
})

t.test("a token that is revoked while its turn has not come does not renew", async (t) => {
  const { membership, deliver, connection, closed } = await inBatch()
  const revoked = { kind: "jti" as const, value: "new", until: null, issued_before: null }
  t.equal(
    membership.reauthorise(connection, { ...NEW, jti: "new" }, () => t.fail("it was revoked")),
    true,
  )
  await deliver(12, { first: false, final: false, revocations: [revoked] })
  t.same(closed, [], "the token that counts is another")
  await deliver(12, { first: false })
  t.same(closed, [4507])
})
