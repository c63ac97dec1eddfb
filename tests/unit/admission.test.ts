/** The admission, with tokens whose check takes its time: what happens meanwhile counts. */

import t from "tap"
import { createRevocations } from "../../relay/access/revocations.ts"
import { ALL } from "../../relay/change/change.ts"
import { createAdmission } from "../../relay/gateway/admission.ts"
import { createFaults } from "../../relay/gateway/faults.ts"
import { CloseCode } from "../../relay/protocol/close-code.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import {
  fakeAudit,
  fakeAuth,
  fakeConnection,
  fakeHub,
  fakeLimits,
  good,
  parameters,
  quietLog,
} from "../helpers/neighbours.ts"

function start() {
  const [hub, auth, limits, audit] = [fakeHub(), fakeAuth(), fakeLimits(), fakeAudit()]
  const [revocations, metrics] = [createRevocations(), createMetrics()]
  const faults = createFaults({ limits, metrics, settings: { maxErrors: 20 } })
  const settings = { heartbeatMs: 25_000 }
  const deps = { hub, auth, revocations, limits, audit, faults, log: quietLog, metrics, settings }
  return { ...deps, admission: createAdmission(deps) }
}

/** A client that has been admitted as user 7. */
async function admitted() {
  const all = start()
  const client = fakeConnection()
  all.admission.open(client.connection, parameters())
  void all.admission.authenticate(client.connection, "first", undefined)
  await all.auth.answer(good("7"))
  return { ...all, ...client }
}

const revocation = { kind: "user", value: "7", until: null, issued_before: null } as const

t.test("a client is admitted to what its upgrade asked for", async (t) => {
  const { admission, auth, hub, audit } = start()
  const { connection, sent } = fakeConnection()
  admission.open(connection, parameters({ channels: ["committee:1", "user:7"] }))
  void admission.authenticate(connection, "first", undefined)
  t.same(hub.asked, [], "nothing before the token is checked")
  await auth.answer(good("7"))
  t.same(hub.asked, ["join 7 committee:1"])
  t.same(sent, ["connection_success"])
  t.same(audit.names(), ["connected"])
})

t.test("a revocation that comes while the token is checked refuses it", async (t) => {
  const { admission, auth, hub, audit, revocations } = start()
  const { connection, sent } = fakeConnection()
  admission.open(connection, parameters())
  void admission.authenticate(connection, "first", undefined)
  revocations.learn([revocation])
  await auth.answer(good("7"))
  t.same(sent, [`closed ${CloseCode.forbidden} revoked`])
  t.same(hub.asked, [])
  t.same(audit.events, [{ event: "token_refused", reason: "revoked" }])
})

t.test("a revocation that comes while a later token is checked closes", async (t) => {
  const { admission, auth, hub, connection, sent, revocations } = await admitted()
  void admission.authenticate(connection, "second", undefined)
  revocations.learn([revocation])
  await auth.answer(good("7"))
  t.same(sent.slice(1), [`closed ${CloseCode.forbidden} revoked`])
  t.same(hub.asked, [`join 7 ${ALL}`], "its identity stays the one before")
})

t.test("a client that leaves while its token is checked joins nothing and leaves no trace", async (t) => {
  for (const result of [good("7"), { ok: false, reason: "invalid" } as const]) {
    const { admission, auth, hub, audit } = start()
    const { connection, sent } = fakeConnection()
    admission.open(connection, parameters())
    const answered = admission.authenticate(connection, "first", undefined)
    admission.forget(connection)
    await auth.answer(result)
    await answered
    t.same([hub.asked, sent, audit.events], [[], [], []])
  }
})

t.test("a client that leaves while a later token is checked is not given another identity", async (t) => {
  const { admission, auth, hub, connection } = await admitted()
  void admission.authenticate(connection, "second", undefined)
  admission.forget(connection)
  await auth.answer(good("7"))
  t.same(hub.asked, [`join 7 ${ALL}`])
})

t.test("a client that the relay closes while its token is checked joins nothing", async (t) => {
  const { admission, auth, hub } = start()
  const { connection, sent } = fakeConnection()
  admission.open(connection, parameters())
  void admission.authenticate(connection, "first", undefined)
  connection.close(CloseCode.drain, "the relay is stopping")
  await auth.answer(good("7"))
  t.same(hub.asked, [])
  t.same(sent, [`closed ${CloseCode.drain} the relay is stopping`])
})

t.test("a later token of another user is an error, and changes nothing", async (t) => {
  const { admission, auth, hub, audit, connection, sent } = await admitted()
  void admission.authenticate(connection, "second", 1)
  await auth.answer(good("8"))
  t.same(sent.slice(1), ["error other_user"])
  t.equal(connection.user, "7")
  t.equal(connection.faults, 1)
  t.same(hub.asked, [`join 7 ${ALL}`])
  t.same(audit.events.at(-1), { event: "token_refused", reason: "other_user" })
})

t.test("an issuer that cannot be asked keeps new clients out, and closes none that is in", async (t) => {
  const unavailable = { ok: false, reason: "unavailable" } as const
  const { admission, auth, hub, connection, sent } = await admitted()
  void admission.authenticate(connection, "second", undefined)
  await auth.answer(unavailable)
  t.same(sent.slice(1), ["error busy"])
  t.notOk(connection.closing)
  const stranger = fakeConnection()
  admission.open(stranger.connection, parameters())
  void admission.authenticate(stranger.connection, "first", undefined)
  await auth.answer(unavailable)
  t.same(stranger.sent, [`closed ${CloseCode.tryAgain} the token cannot be checked now`])
  t.same(hub.asked, [`join 7 ${ALL}`])
})

t.test("a user with too many connections is not placed", async (t) => {
  const all = start()
  const limits = { ...all.limits, addConnection: () => false }
  const admission = createAdmission({ ...all, limits })
  const { connection, sent } = fakeConnection()
  admission.open(connection, parameters())
  void admission.authenticate(connection, "first", undefined)
  await all.auth.answer(good("7"))
  t.same(sent, [`closed ${CloseCode.connectionLimit} too many connections of this user`])
  t.same(all.hub.asked, [])
  t.same(all.audit.events, [])
})
