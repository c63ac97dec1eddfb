/** What a client is told of its token, wherever it came: before it is in, and when it is renewed. */

import { request } from "node:http"
import t, { type Test } from "tap"
import type { Client } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

const REPORT = "/api/utils/websocket/health/"

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}
const seconds = () => Math.floor(Date.now() / 1_000)

/** The places where a token may stand. */
const PLACES: Record<string, (relay: TestRelay, text: string) => Promise<Client>> = {
  header: (relay, text) => relay.open("/ws", { headers: { authorization: `Bearer ${text}` } }),
  subprotocol: (relay, text) => relay.open("/ws", { protocols: ["commitcast.v1", `bearer.${text}`] }),
  query: (relay, text) => relay.open(`/ws?token=${encodeURIComponent(text)}`),
  async message(relay, text) {
    const client = await relay.open("/ws")
    client.send({ type: "authenticate", token: text })
    return client
  },
}

const success = (client: Client) => client.first("success", ({ type }) => type === "connection_success")

/** The status of the report for these Authorization headers. */
const reportStatus = (relay: TestRelay, authorization: string[]) =>
  new Promise<number | undefined>((resolve, reject) => {
    request(`${relay.url}${REPORT}`, { headers: { Authorization: authorization } }, (response) => {
      response.resume()
      resolve(response.statusCode)
    })
      .on("error", reject)
      .end()
  })

const cut = (text: string) => text.slice(0, -4)
const REFUSALS: [what: string, text: () => string, code: number, reason: string, status: number][] = [
  ["a token that was cut", () => cut(token()), 4500, "invalid token", 401],
  ["no token at all", () => "", 4500, "invalid token", 401],
  ["a token of another kind", () => token({ token_type: "refresh" }), 4500, "invalid token", 401],
  ["a token that is not good yet", () => token({ nbf: seconds() + 60 }), 4500, "invalid token", 401],
  ["an expired token", () => token({ exp: seconds() - 60 }), 4005, "token expired", 401],
  ["an expired token of another", () => cut(token({ exp: seconds() - 60 })), 4500, "invalid token", 401],
]

t.test("each refusal has its answer, the same from each place", async (t) => {
  const { relay } = await start(t)
  for (const [what, text, code, reason, status] of REFUSALS) {
    for (const [place, present] of Object.entries(PLACES)) {
      const client = await present(relay, text())
      t.same(await client.closed, { code, reason }, `${what} in the ${place}`)
      t.same(client.messages, [], "and nothing else is said")
    }
    t.equal(await reportStatus(relay, [`Bearer ${text()}`]), status, what)
  }
  const places = Object.keys(PLACES).length
  const counted = (reason: string) => metricOf(relay, "relay_auth_failures_total", `reason="${reason}"`)
  t.same(
    [await counted("missing"), await counted("expired"), await counted("invalid")],
    [places, places, 4 * places],
  )
  for (const [place, present] of Object.entries(PLACES)) {
    const client = await present(relay, token({ sub: place }))
    t.match(await success(client), { user: place })
  }
})

t.test("a bearer header that is none is refused, another scheme is not a token", async (t) => {
  const { relay } = await start(t, { AUTH_TIMEOUT_SECONDS: "0.5" })
  const answers: [header: string | string[], code: number][] = [
    ["Bearer", 4500],
    ["Bearer ", 4500],
    [`Bearer ${token()} ${token()}`, 4500],
    [`Bearer ${token()}, Bearer ${token()}`, 4500],
    [`Bearer "${token()}"`, 4500],
    [[`Bearer ${token()}`, `Bearer ${token()}`], 4501],
    [["Basic dXNlcjpwYXNz", `Bearer ${token()}`, `bearer ${token()}`], 4501],
    [`Token ${token()}`, 4502],
    [`BearerX ${token()}`, 4502],
    ["Basic dXNlcjpwYXNz", 4502],
  ]
  for (const [authorization, code] of answers) {
    const client = await relay.open("/ws", { headers: { authorization } as Record<string, string> })
    t.match(await client.closed, { code }, String(authorization).replaceAll(token(), "<token>"))
  }
  const proxied = await relay.open(`/ws?token=${token()}`, {
    headers: { authorization: "Basic dXNlcjpwYXNz" },
  })
  t.match(await success(proxied), { user: "7" }, "a proxy may have a header of its own")
  t.equal(await reportStatus(relay, [`Bearer ${token()}`, `Bearer ${token({ role: "admin" })}`]), 400)
  t.equal(await reportStatus(relay, [`Bearer ${token({ role: "admin" })}`]), 200)
  t.equal(await reportStatus(relay, [`Bearer ${token()}`]), 403)
  t.equal(await reportStatus(relay, []), 401)
})

t.test("a renewal says which channels are left, and those that are not have ended", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect({}, "?channels=committee:1,committee:2,election:1")
  client.send({ type: "authenticate", token: token({ committees: [2] }), request: 1 })
  const renewed = await client.first("an answer", ({ request }) => request === 1)
  t.match(renewed, { type: "authenticated", channels: ["committee:2", "election:1", "user:7"] })
  await db.query("insert into vote (committee_id, election_id) values (1, 1), (2, null), (null, 1), (2, 1)")
  await client.count(2)
  client.send({ type: "authenticate", token: token(), request: 2 })
  t.match(await client.first("an answer", ({ request }) => request === 2), {
    channels: ["committee:2", "election:1", "user:7"],
  })
  client.send({ type: "subscribe", channels: ["committee:1"] })
  await client.first("subscribed", ({ type }) => type === "subscribed")
  await db.query("insert into vote (committee_id) values (1)")
  await client.count(3)
  t.same(
    client.changes().map(({ data }) => [data?.committee_id, data?.election_id]),
    [
      [2, null],
      [2, 1],
      [1, null],
    ],
    "what had ended comes back only if it is asked for",
  )
})

t.test("a renewal that is refused closes, but for that of another user", async (t) => {
  const { relay } = await start(t)
  for (const [what, text, code, reason] of REFUSALS) {
    const client = await relay.connect()
    client.send({ type: "authenticate", token: text() })
    t.same(await client.closed, { code, reason }, what)
  }
  const client = await relay.connect({ sub: "7", committees: [1] })
  client.send({ type: "authenticate", token: token({ sub: "8" }), request: 1 })
  t.match(await client.first("an answer", ({ request }) => request === 1), { code: "other_user" })
  client.send({ type: "subscribe", channels: ["committee:2"], request: 2 })
  t.match(
    await client.first("an answer", ({ request }) => request === 2),
    { code: "forbidden_channel" },
    "the rights are still its own",
  )
})

t.test("what follows the token in the same packet is obeyed after it", async (t) => {
  const { relay } = await start(t)
  const client = await relay.open("/ws")
  const { _socket: socket } = client.socket as unknown as { _socket: { cork(): void; uncork(): void } }
  socket.cork()
  client.send({ type: "authenticate", token: token() })
  client.send({ type: "subscribe", channels: ["committee:1"], request: 1 })
  client.send({ type: "authenticate", token: token({ committees: [2] }), request: 2 })
  client.send({ type: "subscribe", channels: ["committee:1"], request: 3 })
  socket.uncork()
  await client.first("the last answer", ({ request }) => request === 3)
  t.same(
    client.messages.map(({ type, code }) => code ?? type),
    ["connection_success", "subscribed", "authenticated", "forbidden_channel"],
  )
})

t.test("of a hundred whose tokens expire together all are closed with 4005", async (t) => {
  const { relay, db } = await start(t)
  // All of them must be in before the first is closed.
  const exp = seconds() + 3
  const clients = await Promise.all(Array.from({ length: 100 }, () => relay.connect({ exp })))
  const codes = await Promise.all(clients.map(async ({ closed }) => (await closed).code))
  t.same([...new Set(codes)], [4005])
  await until("they are gone", () => relay.relay.status().hub.connections === 0)
  await db.query("insert into vote default values")
  t.equal(await metricOf(relay, "relay_deliveries_total"), 0)
})
