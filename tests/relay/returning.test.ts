/** Whatever a connection was granted, another can begin with. */

import t, { type Test } from "tap"
import type { Client } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

t.test("a channel with a comma is one in a frame and in a URL", async (t) => {
  const { db, relay } = await start(t)
  await db.query(`
    create table note (id int primary key, room text);
    select relay.track('note', channels => '{"room": "room"}')`)
  const live = await relay.connect({}, "?channels=committee:1")
  live.send({ type: "subscribe", channels: ["room:a,b"], request: 1 })
  t.match(await live.first("the answer", ({ request }) => request === 1), { type: "subscribed" })
  const back = await relay.connect({}, "?channel=room:a%2Cb&channels=room:c,room:d")
  t.match(back.messages[0], { channels: ["room:a,b", "room:c", "room:d", "user:7"] })
  await db.query("insert into note values (1, 'a,b'), (2, 'b'), (3, 'd')")
  const ids = (changes: Array<{ key?: { id?: unknown } }>) => changes.map(({ key }) => key?.id)
  await live.count(1)
  await back.count(2)
  t.same([ids(live.changes()), ids(back.changes())], [["1"], ["1", "3"]])
  live.send({ type: "subscribe", types: ["note,vote"], request: 2 })
  t.match(await live.first("the answer", ({ request }) => request === 2), {
    code: "bad_message",
    message: "types.0: a type is a name without a comma",
  })
})

t.test("a user's own channel has whatever name the user has", async (t) => {
  const { db, relay } = await start(t)
  await db.query("create table note (id int primary key, user_id text); select relay.track('note')")
  const names = ["Doe, Jane", "urn:user:7", "auth0|7", "ü\n😀", "x".repeat(128)]
  for (const [id, sub] of names.entries()) {
    const name = `user:${sub}`
    const client = await relay.connect({ sub }, `?${new URLSearchParams({ channel: name })}`)
    t.same(client.messages[0]?.channels, [name])
    client.send({ type: "subscribe", channels: [name], request: 1 })
    t.match(await client.first("the answer", ({ request }) => request === 1), { type: "subscribed" }, sub)
    await db.query("insert into note values ($1, $2)", [id, sub])
    t.match(await client.count(1), [{ data: { id, user_id: sub } }])
    client.send({ type: "subscribe", channels: ["user:else"], request: 2 })
    t.match(await client.first("the answer", ({ request }) => request === 2), { code: "forbidden_channel" })
  }
  for (const none of ["room:a b", "room:a:b", "room:", ":a", "Room:a", "user:", `user:${"x".repeat(129)}`]) {
    const path = `/ws?${new URLSearchParams({ channel: none, token: token() })}`
    await t.rejects(relay.open(path), { message: /400/ }, none)
  }
})

/** A connection that waits to be told more. */
async function waiting(relay: TestRelay, claims: Record<string, unknown> = {}, query = "") {
  const headers = { authorization: `Bearer ${token(claims)}` }
  const client = await relay.open(`/ws?start=message${query}`, { headers })
  await client.first("that the token is good", ({ type }) => type === "authenticated")
  return client
}

const welcome = (client: Client) => client.first("the welcome", ({ type }) => type === "connection_success")
const answerTo = (client: Client, request: number) =>
  client.first(`the answer to ${request}`, (message) => message.request === request)

t.test("whatever was granted by messages is granted again by the same, after a cut", async (t) => {
  const { db, relay } = await start(t)
  // None of it would fit into a URL.
  const names = Array.from({ length: 127 }, (_, n) => `committee:${n},${"x".repeat(120)}`)
  const half = Math.ceil(names.length / 2)
  const ids = Array.from({ length: 256 }, (_, n) => `${n}${"0".repeat(55)}`)
  const messages = [
    { type: "subscribe", where: { id: { in: [...ids, "1", "3"].slice(-256) } }, actions: ["create"] },
    { type: "subscribe", channels: names.slice(0, half) },
    { type: "subscribe", channels: [...names.slice(half), "election_updates"] },
  ]
  t.ok(JSON.stringify(messages[0]).length > 14_000, "nor the filter alone through most proxies")
  const first = await relay.connect({}, "?channels=user:7")
  for (const [n, message] of messages.entries()) {
    first.send({ ...message, request: n })
    t.match(await answerTo(first, n), { type: "subscribed" })
  }
  await db.query("insert into vote (id) values (1)")
  await first.count(1)
  await until("a checkpoint behind it", () => first.messages.at(-1)?.type === "checkpoint")
  const cursor = first.messages.at(-1)?.cursor
  first.socket.terminate()
  await db.query("insert into vote (id) values (2), (3)")

  const back = await waiting(relay)
  for (const message of messages) back.send(message)
  back.send({ type: "start", cursor })
  const answer = await welcome(back)
  t.match(answer, { recovered: true, cursor })
  t.same(answer.channels, [...names, "election_updates", "user:7"])
  await db.query("insert into vote (id) values (4), (3000)")
  await db.query(
    "update vote set id = 1 where id = 1; delete from vote where id = 1; insert into vote (id) values (1)",
  )
  t.same(
    (await back.count(2)).map(({ key }) => key?.id),
    ["3", "1"],
    "what was missed and what is new, through the filter",
  )
})

t.test("a message that is refused before the start spoils none of the others", async (t) => {
  const { relay } = await start(t)
  const client = await waiting(relay, { committees: [1, 2] }, "&channels=committee:1")
  client.send({ type: "subscribe", channels: ["committee:2"] })
  client.send({ type: "subscribe", channels: ["election:5", "committee:9"], where: { id: 1 }, request: 1 })
  client.send({ type: "subscribe", where: { id: { like: 1 } }, request: 2 })
  client.send({ type: "subscribe", channels: ["election:4"], cursor: "x", request: 3 })
  client.send({ type: "unsubscribe", channels: ["committee:1"], request: 4 })
  client.send({ type: "start" })
  t.match(await welcome(client), { channels: ["committee:1", "committee:2", "user:7"], reason: "no_cursor" })
  t.match(await answerTo(client, 1), { code: "forbidden_channel", message: "not allowed: committee:9" })
  t.match(await answerTo(client, 2), { code: "bad_message" })
  t.match(await answerTo(client, 3), { code: "bad_message", message: "cursor: give it to start" })
  t.match(await answerTo(client, 4), { code: "not_started" })
  client.send({ type: "start", request: 5 })
  t.match(await answerTo(client, 5), { code: "bad_message", message: /has started already/ })
})

t.test("the token may come by message too, and only it lets anybody ask", async (t) => {
  const { relay } = await start(t)
  const client = await relay.open("/ws?start=message&channels=committee:1&cursor=x")
  client.send({ type: "subscribe", channels: ["committee:2"], request: 1 })
  client.send({ type: "start", request: 2 })
  client.send({ type: "authenticate", token: token(), request: 3 })
  client.send({ type: "authenticate", token: token({ sub: "8" }), request: 4 })
  client.send({ type: "subscribe", channels: ["user:7"], request: 5 })
  client.send({ type: "start" })
  t.match(await welcome(client), { channels: ["committee:1", "user:7"], reason: "malformed" })
  t.same(
    client.messages.map(({ type, code, request }) => [code ?? type, request]),
    [
      ["not_authenticated", 1],
      ["not_authenticated", 2],
      ["authenticated", 3],
      ["other_user", 4],
      ["connection_success", undefined],
    ],
  )
  const alone = await waiting(relay)
  alone.send({ type: "subscribe", channels: ["user:7"] })
  alone.send({ type: "start" })
  t.same((await welcome(alone)).channels, ["user:7"])
  const all = await waiting(relay)
  all.send({ type: "start" })
  t.same((await welcome(all)).channels, ["election_updates", "user:7"])
})

t.test("who waits to start is held to all that others are", async (t) => {
  const { db, relay } = await start(t, { MAX_CHANNELS: "2", AUTH_TIMEOUT_SECONDS: "2" })
  const many = await waiting(relay)
  many.send({ type: "subscribe", channels: ["a:1", "a:2"] })
  many.send({ type: "subscribe", channels: ["user:7", "a:3"] })
  t.match(await many.closed, { code: 4505 })
  const revoked = await waiting(relay, { sub: "gone" })
  await db.query("select relay.revoke('gone')")
  await until("the relay knows", async () => (await metricOf(relay, "relay_revocations")) === 1)
  revoked.send({ type: "start" })
  t.match(await revoked.closed, { code: 4507, reason: "revoked" })
  t.match(await (await waiting(relay)).closed, { code: 4502 })
  await until("nothing is left", () => relay.relay.status().hub.connections === 0)
})

t.test("a token that expires before the start lets nobody in for a moment", async (t) => {
  const { relay } = await start(t, { AUTH_TIMEOUT_SECONDS: "60" })
  const leewayMs = 5_000
  const exp = Math.floor(Date.now() / 1_000) - 2
  const client = await waiting(relay, { exp })
  await until("the token has expired", () => Date.now() > exp * 1_000 + leewayMs)
  client.send({ type: "start" })
  t.match(await client.closed, { code: 4005 })
  t.same(
    client.messages.map(({ type }) => type),
    ["authenticated"],
  )
})

t.test("frames before the start count for the user, however many connections they come by", async (t) => {
  const settings = { MAX_FRAME_RATE: "0", MAX_FRAME_RATE_PER_USER: "1" }
  const relay = await startRelay(t, await database(t), settings, { clock: () => 0 })
  const [one, other, stranger] = [
    await waiting(relay),
    await waiting(relay),
    await waiting(relay, { sub: "8" }),
  ]
  for (const client of [one, stranger])
    for (let n = 0; n < 4; n++) client.send({ type: "subscribe", types: ["vote"] })
  for (const client of [one, stranger]) {
    client.send({ type: "start" })
    await welcome(client)
  }
  other.send({ type: "subscribe", types: ["vote"] })
  t.match(await other.closed, { code: 4013 })
})
