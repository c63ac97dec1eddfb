/** The inbox: frames in order, whatever a token's check takes. */

import t from "tap"
import { createAdmission } from "../../relay/gateway/admission.ts"
import { type Command, createCommands } from "../../relay/gateway/commands.ts"
import { createFaults } from "../../relay/gateway/faults.ts"
import { createInbox } from "../../relay/gateway/inbox.ts"
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

/** An inbox before a real admission and real commands, whose own neighbours are fakes. */
function start(maxErrors = 20) {
  const [hub, auth, limits, audit, metrics] = [
    fakeHub(),
    fakeAuth(),
    fakeLimits(),
    fakeAudit(),
    createMetrics(),
  ]
  const faults = createFaults({ limits, metrics, settings: { maxErrors } })
  const admission = createAdmission({
    hub,
    auth,
    revocations: { judge: (result) => result },
    limits,
    audit,
    faults,
    log: quietLog,
    metrics,
    settings: { heartbeatMs: 25_000 },
  })
  const real = createCommands({ hub, limits, audit, faults })
  const handled: string[] = []
  const commands = {
    handle(connection: Parameters<typeof real.handle>[0], command: Command) {
      handled.push(`${command.type} ${command.request}`)
      real.handle(connection, command)
    },
  }
  const client = fakeConnection()
  const inbox = createInbox({ admission, commands, faults, metrics })
  return {
    inbox,
    hub,
    auth,
    limits,
    handled,
    ...client,
    receive: (...messages: Array<object | string>) => {
      for (const message of messages)
        inbox.receive(client.connection, typeof message === "string" ? message : JSON.stringify(message))
    },
  }
}

const ping = (request: number) => ({ type: "ping", request })
const authenticate = (token: string, request?: number) => ({ type: "authenticate", token, request })

t.test("frames that come while a token is checked are handled after it, in order", async (t) => {
  const { inbox, connection, auth, sent, handled, receive } = start()
  inbox.open(connection, parameters({ tokens: ["first"] }))
  receive(ping(1), { type: "subscribe", channels: ["committee:1"], request: 2 }, ping(3))
  t.same([handled, sent], [[], []])
  await auth.answer(good("7"))
  t.same(handled, ["ping 1", "subscribe 2", "ping 3"])
  t.same(sent, ["connection_success", "pong 1", "subscribed 2", "pong 3"])
})

t.test("without a token nothing is handled but one", async (t) => {
  const { inbox, connection, auth, sent, handled, receive } = start()
  inbox.open(connection, parameters())
  receive(ping(1))
  t.same(sent, ["error not_authenticated"])
  receive(authenticate("first"), ping(2))
  await auth.answer(good("7"))
  t.same(handled, ["ping 2"])
  t.same(sent.slice(1), ["connection_success", "pong 2"])
})

t.test("more than is held is answered busy, and what is held is kept", async (t) => {
  const { inbox, connection, auth, sent, handled, receive } = start()
  inbox.open(connection, parameters({ tokens: ["first"] }))
  for (let n = 1; n <= 34; n++) receive(ping(n))
  t.same(sent, ["error busy", "error busy"])
  await auth.answer(good("7"))
  t.equal(handled.length, 32)
  t.equal(handled.at(-1), "ping 32")
  receive(ping(35))
  t.equal(sent.at(-1), "pong 35")
})

t.test("of long frames fewer are held", async (t) => {
  const { inbox, connection, auth, sent, receive } = start()
  const long = JSON.stringify({ ...ping(1), more: "x".repeat(8_192) })
  inbox.open(connection, parameters({ tokens: ["first"] }))
  receive(long, long, ping(2))
  t.same(sent, ["error busy"])
  await auth.answer(good("7"))
  t.same(sent.slice(1), ["connection_success", "pong 1", "pong 1"])
})

t.test("a client that leaves while its token is checked has nothing handled", async (t) => {
  const { inbox, connection, auth, sent, hub, handled, receive } = start()
  inbox.open(connection, parameters({ tokens: ["first"] }))
  receive(ping(1), authenticate("second"))
  inbox.forget(connection)
  await auth.answer(good("7"))
  t.same([handled, sent, hub.asked, auth.checked()], [[], [], [], []])
})

t.test("tokens are checked one after the other: the first one's answer comes first", async (t) => {
  const { inbox, connection, auth, sent, handled, receive } = start()
  inbox.open(connection, parameters({ tokens: ["first"] }))
  receive(authenticate("second", 2), ping(3), authenticate("third", 4), ping(5))
  t.same(auth.checked(), ["first"])
  await auth.answer(good("7"))
  t.same(auth.checked(), ["second"], "what follows it waits again")
  t.same(handled, [])
  await auth.answer(good("7"))
  t.same(sent, ["connection_success", "authenticated 2", "pong 3"])
  t.same(auth.checked(), ["third"])
  await auth.answer({ ok: false, reason: "expired" })
  t.same(sent.slice(3), [`closed ${CloseCode.tokenExpired} token expired`])
  t.same(handled, ["ping 3"], "nothing is handled of a client that is closed")
})

t.test("a client that makes too many errors in what was held is closed, and the rest is void", async (t) => {
  const { inbox, connection, auth, sent, limits, handled, receive } = start(2)
  inbox.open(connection, parameters({ tokens: ["first"] }))
  receive("{", ping(1), { type: "nonsense" }, { type: "subscribe", channels: ["A"] }, ping(2), "{")
  await auth.answer(good("7"))
  t.same(sent, [
    "connection_success",
    "error bad_message",
    "pong 1",
    "error unknown_type",
    `closed ${CloseCode.tooManyErrors} too many errors`,
  ])
  t.same(handled, ["ping 1"])
  t.same(limits.asked, ["record errors"])
  t.equal(connection.faults, 3)
})

t.test("two tokens in one upgrade close, and neither is checked", (t) => {
  const { inbox, connection, auth, sent } = start()
  inbox.open(connection, parameters({ tokens: ["first", "first"] }))
  t.same(sent, [`closed ${CloseCode.badMessage} more than one token`])
  t.same(auth.checked(), [])
  t.end()
})
