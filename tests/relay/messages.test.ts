/** The conversation: what a client may say, what it is answered, and what ends it. */

import t, { type Test } from "tap"
import type { Client, Received } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { startRelay, token } from "../helpers/relay.ts"

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

/** Says something and waits for what answers it, by the number of the request. */
let requests = 0
function ask(client: Client, message: Record<string, unknown>) {
  const request = ++requests
  client.send({ ...message, request })
  return client.first(`the answer to ${message.type}`, (answer) => answer.request === request)
}

/** Waits until everything before was handled. */
const settle = (client: Client) => ask(client, { type: "ping" })

const errors = (client: Client) => client.messages.filter(({ type }) => type === "error")

const CURSOR = /^[0-9a-z]+:\d+:\d+:[\d,]*$/

t.test("a connection is greeted with what it needs to know", async (t) => {
  const { relay } = await start(t, { HEARTBEAT_SECONDS: "17" })
  const client = await relay.connect({ sub: "9" })
  const { connection, cursor, expires_in, ...greeting } = client.messages[0] as Received
  t.same(greeting, {
    type: "connection_success",
    user: "9",
    channels: ["election_updates", "user:9"],
    recovered: false,
    replayed: 0,
    reason: "no_cursor",
    heartbeat_seconds: 17,
  })
  t.match(connection, /^[0-9a-f-]{36}$/)
  t.match(cursor, CURSOR)
  t.ok(Number(expires_in) > 3_500 && Number(expires_in) < 3_700)
  const other = await relay.connect()
  t.not(other.messages[0]?.connection, connection)
})

t.test("a cursor that means nothing here is told so, and the connection begins now", async (t) => {
  const { relay, db } = await start(t)
  const first = await relay.connect()
  const { cursor } = first.messages[0] as Received
  for (const [index, bad] of ["x", "0:0:0:", "%00", "%", `${cursor}9999999`, ""].entries()) {
    const client = await relay.connect({}, `?cursor=${bad}`)
    t.match(client.messages[0], { recovered: false, replayed: 0, reason: String, cursor: CURSOR }, bad)
    await db.query("insert into vote (votes) values ($1)", [index])
    t.match(await client.count(1), [{ data: { votes: index } }])
  }
})

t.test("channels may be chosen when connecting", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect({}, "?channels=committee:1,election:1,,committee:1")
  t.same(client.messages[0]?.channels, ["committee:1", "election:1", "user:7"])
  const empty = await relay.connect({}, "?channels=")
  t.same(empty.messages[0]?.channels, ["election_updates", "user:7"])
  await db.query("insert into vote (committee_id, election_id) values (2, null), (1, 1), (2, 1)")
  const changes = await client.count(2)
  await empty.count(3)
  await settle(client)
  t.same(
    changes.map(({ data }) => [data?.committee_id, data?.election_id]),
    [
      [1, 1],
      [2, 1],
    ],
    "once, although two channels bring it",
  )
})

t.test("naming one's own channel when connecting changes nothing but what else is joined", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect({}, "?channels=user:7")
  t.same(client.messages[0]?.channels, ["user:7"])
  const both = await relay.connect({}, "?channels=user:7,committee:1")
  t.same([...(both.messages[0]?.channels ?? [])].sort(), ["committee:1", "user:7"])
  await db.query(
    "insert into guarantee (user_id) values (8); select relay.send_to_user('7', '1'); insert into guarantee (user_id) values (7)",
  )
  const changes = await client.count(2)
  t.match(changes, [{ type: "message", payload: 1 }, { data: { user_id: 7 } }])
  t.match(await ask(client, { type: "unsubscribe", channels: ["user:7"] }), { code: "not_subscribed" })
  await settle(both)
  t.equal(both.changes().length, 2)
})

t.test("a ping is answered with its request, whatever kind it is", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  client.send({ type: "ping" })
  const bare = await client.first("pong", ({ type }) => type === "pong")
  t.notOk("request" in bare)
  t.match(bare.at, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
  for (const request of [0, -1.5, "", "ü", "a".repeat(64)]) {
    client.send({ type: "ping", request, more: "is ignored" })
    t.match(await client.first("pong", (answer) => answer.request === request), { type: "pong" })
  }
  client.send({ type: "pong" })
  await settle(client)
  t.same(errors(client), [])
})

t.test("channels are joined and left", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect({}, "?channels=committee:1")
  const other = await relay.connect()
  const insert = async (committee: number) => {
    await db.query("insert into vote (committee_id) values ($1)", [committee])
    await other.first("it", ({ data }) => data?.committee_id === committee)
  }
  await insert(2)
  const joined = await ask(client, { type: "subscribe", channels: ["committee:3", "committee:1"] })
  t.match(joined, {
    type: "subscribed",
    channels: ["committee:3", "committee:1"],
    cursor: CURSOR,
    recovered: false,
    replayed: 0,
    reason: "no_cursor",
  })
  await insert(3)
  const left = await ask(client, { type: "unsubscribe", channels: ["committee:1"] })
  t.match(left, { type: "unsubscribed", channels: ["committee:1"], cursor: CURSOR })
  await insert(1)
  await ask(client, { type: "unsubscribe", channels: ["committee:3"] })
  await insert(4)
  await ask(client, { type: "subscribe", channels: ["election_updates"] })
  await insert(5)
  await settle(client)
  t.same(
    client.changes().map(({ data }) => data?.committee_id),
    [3, 5],
  )
})

t.test("with every channel left the own one stays", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect()
  await ask(client, { type: "unsubscribe", channels: ["election_updates"] })
  const answer = await ask(client, { type: "unsubscribe", channels: ["user:7"] })
  t.match(answer, { type: "error", code: "not_subscribed", message: /own user channel/ })
  t.match(await ask(client, { type: "subscribe", channels: ["user:7"] }), { type: "subscribed" })
  await db.query("insert into guarantee (user_id) values (null), (8), (7)")
  t.match(await client.count(1), [{ data: { user_id: 7 }, channels: ["election_updates", "user:7"] }])
  await settle(client)
  t.equal(client.changes().length, 1)
})

t.test("messages of the application reach their channel and no other", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect({}, "?channels=hall:north,committee:1")
  const other = await relay.connect({ sub: "8" })
  await db.query("select relay.broadcast('hall:south', '1')")
  await db.query(`select relay.broadcast('hall:north', '{"a": [1, "ü\\n"]}')`)
  await db.query("select relay.broadcast('election_updates', 'null')")
  await db.query("select relay.send_to_user('8', '\"for 8\"')")
  t.match(await other.count(2), [
    { type: "message", channel: "election_updates", payload: null },
    { type: "message", channel: "user:8", payload: "for 8" },
  ])
  t.match(await client.count(1), [
    { channel: "hall:north", payload: { a: [1, "ü\n"] }, id: /^\d+$/, tx: { last: true } },
  ])
  await settle(client)
  t.equal(client.changes().length, 1)
  t.equal(other.changes().length, 2)
})

t.test("a channel that is not allowed is refused, and nothing else changes", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect({ committees: [1], elections: [1] })
  for (const channel of ["user:8", "committee:2", "election:2", "dashboard", "dashboard:1"]) {
    const answer = await ask(client, { type: "subscribe", channels: ["committee:1", channel] })
    t.match(answer, { type: "error", code: "forbidden_channel" })
    t.ok(String(answer.message).endsWith(`: ${channel}`), "it names the one")
    const connecting = await relay.open(`/ws?channels=committee:1,${channel}`, {
      headers: { authorization: `Bearer ${token({ committees: [1], elections: [1] })}` },
    })
    t.match(await connecting.closed, { code: 4507, reason: `channel not allowed: ${channel}` })
    t.equal(connecting.messages.length, 0)
  }
  const long = await relay.open(`/ws?channels=committee:${"€".repeat(128)}`, {
    headers: { authorization: `Bearer ${token({ committees: [1] })}` },
  })
  const reason = `channel not allowed: committee:${"€".repeat(30)}`
  t.match(await long.closed, { code: 4507, reason }, "what a close frame holds of it, in whole characters")
  const listed = await relay.connect({ channels: ["hall:north", "user:7"] })
  t.match(await ask(listed, { type: "subscribe", channels: ["hall:south"] }), { code: "forbidden_channel" })
  t.match(await ask(listed, { type: "subscribe", channels: ["committee:1"] }), { code: "forbidden_channel" })
  t.match(await ask(listed, { type: "subscribe", channels: ["hall:north"] }), { type: "subscribed" })
  await db.query("insert into vote (committee_id, election_id) values (1, 1)")
  await client.count(1)
  t.same(relay.relay.status().hub.channels, { election_updates: 2, "hall:north": 1 })
})

t.test("too many channels close with 4505", async (t) => {
  const { relay } = await start(t, { MAX_CHANNELS: "3" })
  const full = await relay.connect({}, "?channels=committee:1,committee:2,committee:3")
  t.match(await ask(full, { type: "subscribe", channels: ["committee:1", "user:7"] }), {
    type: "subscribed",
  })
  await ask(full, { type: "unsubscribe", channels: ["committee:1"] })
  t.match(await ask(full, { type: "subscribe", channels: ["committee:4"] }), { type: "subscribed" })
  full.send({ type: "subscribe", channels: ["committee:5"] })
  t.match(await full.closed, { code: 4505, reason: "too many channels" })
  const connecting = await relay.open("/ws?channels=a:1,a:2,a:3,a:4", {
    headers: { authorization: `Bearer ${token()}` },
  })
  t.match(await connecting.closed, { code: 4505, reason: "too many channels" })
})

t.test("what is no message is told so, and the connection goes on", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  const frames: Array<[frame: string, code: string]> = [
    ["", "bad_message"],
    [" ", "bad_message"],
    ["{", "bad_message"],
    ['{"type":"ping"', "bad_message"],
    ["\u0000", "bad_message"],
    ["null", "bad_message"],
    ["7", "bad_message"],
    ['"ping"', "bad_message"],
    ["[]", "bad_message"],
    ['[{"type":"ping"}]', "bad_message"],
    ["{}", "unknown_type"],
    ['{"type":"publish"}', "unknown_type"],
    ['{"type":7}', "unknown_type"],
    ['{"type":"__proto__"}', "unknown_type"],
    ['{"type":"subscribe"}', "bad_message"],
    ['{"type":"subscribe","channels":"committee:1"}', "bad_message"],
    ['{"type":"subscribe","channels":[]}', "bad_message"],
    ['{"type":"ping","request":{}}', "bad_message"],
    ['{"type":"authenticate"}', "bad_message"],
  ]
  for (const [index, [frame, code]] of frames.entries()) {
    client.send(frame)
    await client.first(`error ${index}`, () => errors(client).length > index)
    const answer = errors(client)[index]
    t.match(answer, { type: "error", code, message: /\w/ }, frame)
  }
  t.match(await settle(client), { type: "pong" })
})

t.test("what is not even JSON is told just that", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  client.send('{"type":"ping"')
  t.match(await client.first("error", ({ type }) => type === "error"), {
    code: "bad_message",
    message: /JSON/,
  })
})

t.test("names that are no channels are refused", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  const names = [
    "",
    "Committee:1",
    "committee:",
    "committee:1:2",
    "committee: 1",
    "1",
    ":1",
    "committee:1\n",
    "*",
  ]
  for (const name of names) {
    client.send({ type: "subscribe", channels: [name] })
    const refused = relay.open(`/ws?channels=${encodeURIComponent(name)}`)
    if (name !== "") await t.rejects(refused, { message: "Unexpected server response: 400" }, name)
  }
  await settle(client)
  t.same(
    errors(client).map(({ code }) => code),
    names.map(() => "bad_message"),
  )
})

t.test("an error does not repeat what the client sent", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  const secret = token({ sub: "x".repeat(8_200) })
  client.send({ type: "authenticate", token: secret })
  client.send({ type: "authenticate", token: [secret] })
  client.send({ type: "secret-type" })
  await settle(client)
  t.equal(errors(client).length, 3)
  t.notMatch(client.texts.join("\n"), secret.slice(40, 80))
  t.notMatch(client.texts.join("\n"), "secret-type")
})

t.test("after too many errors it is over", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  for (let sent = 0; sent < 25; sent++) client.send("?")
  t.match(await client.closed, { code: 4509, reason: "too many errors" })
  t.equal(errors(client).length, 20)
})

t.test("before the token only authenticate is heard", async (t) => {
  const { relay } = await start(t)
  const client = await relay.open("/ws?channels=committee:1")
  for (const message of [
    { type: "ping" },
    { type: "subscribe", channels: ["committee:2"] },
    { type: "unsubscribe", channels: ["committee:1"] },
    { type: "pong" },
  ])
    t.match(await ask(client, message), { type: "error", code: "not_authenticated" }, message.type)
  client.send({ type: "authenticate", token: token() })
  t.match(await client.first("success", ({ type }) => type === "connection_success"), {
    channels: ["committee:1", "user:7"],
  })
  const noisy = await relay.open("/ws")
  for (let sent = 0; sent < 25; sent++) noisy.send({ type: "ping" })
  t.match(await noisy.closed, { code: 4509 })
})

t.test("messages that are sent right behind the token are heard after it", async (t) => {
  const { relay } = await start(t)
  const client = await relay.open("/ws")
  client.send({ type: "authenticate", token: token() })
  client.send({ type: "subscribe", channels: ["committee:1"], request: "s" })
  client.send({ type: "authenticate", token: token(), request: "a" })
  client.send({ type: "unsubscribe", channels: ["committee:1"], request: "u" })
  await client.first("the last answer", ({ request }) => request === "u")
  t.same(
    client.messages.map(({ type }) => type),
    ["connection_success", "subscribed", "authenticated", "unsubscribed"],
  )
})

t.test("a binary frame closes with 4501", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  client.socket.send(Buffer.from('{"type":"ping"}'))
  t.match(await client.closed, { code: 4501, reason: "frames must be JSON text" })
  const silent = await relay.open("/ws")
  silent.socket.send(Buffer.alloc(0))
  t.match(await silent.closed, { code: 4501 })
})

t.test("a frame beyond 16 KiB closes with 1009, one of 16 KiB does not", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  const frame = (bytes: number) => JSON.stringify({ type: "ping", request: "big" }).padEnd(bytes)
  client.send(frame(16_384))
  await client.first("pong", ({ request }) => request === "big")
  client.send(frame(16_385))
  t.match(await client.closed, { code: 1009 })
  const parts = await relay.connect()
  for (let part = 0; part < 3; part++)
    parts.socket.send(" ".repeat(8_000), { binary: false, fin: part === 2 })
  t.match(await parts.closed, { code: 1009 }, "in fragments")
})

t.test("text that is not UTF-8 closes with 1007", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  client.socket.send(Buffer.from([0x22, 0xff, 0x22]), { binary: false })
  t.match(await client.closed, { code: 1007 })
})

t.test("what a client says while it is sent away is not answered", async (t) => {
  const { relay } = await start(t)
  const client = await relay.connect()
  client.socket.send(Buffer.alloc(1))
  for (let sent = 0; sent < 50; sent++) client.send({ type: "ping" })
  await client.closed
  t.equal(client.messages.length, 1)
})
