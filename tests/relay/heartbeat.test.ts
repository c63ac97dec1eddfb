/** What passes when nothing happens, what tells a client how far it is, and who is taken for dead. They wait, so they run at once. */

import t from "tap"
import { type Client, openClient } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { startProxy } from "../helpers/proxy.ts"
import { closesOf, startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 8

const isCheckpoint = ({ type }: { type: string }) => type === "checkpoint"
const checkpoints = (client: Client) =>
  client.messages.filter(isCheckpoint).map(({ cursor }) => String(cursor))
const snapshotOf = (cursor: unknown) => String(cursor).replace(/^[^:]*:/, "")

/**
 * So many rows of five thousand letters take such a line far longer than a heartbeat and the time to answer it; what the
 * kernel holds, where nobody sees whether it is taken, does not. Bytes a second.
 */
const [MANY, SLOW_BYTES] = [8_800, 2_400_000]

/** How the connection ended, or nothing after some time. */
async function ending(client: Client): Promise<number | undefined> {
  let code: number | undefined
  void client.closed.then((closed) => {
    code = closed.code
  })
  await until("it is closed", () => code !== undefined).catch(() => {})
  return code
}

/** What of the log a cursor does not cover. */
const after = (db: Database, cursor: unknown) =>
  db.query<{ id: string }>(
    "select seq::text as id from relay.change where not pg_visible_in_snapshot(xid, $1::pg_snapshot) order by seq",
    [snapshotOf(cursor)],
  )

t.test("an idle connection gets pings and checkpoints with each heartbeat", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { HEARTBEAT_SECONDS: "1" })
  const client = await relay.connect()
  t.equal(client.messages[0]?.heartbeat_seconds, 1)
  let pings = 0
  client.socket.on("ping", () => pings++)
  const silent = await relay.open("/ws")
  silent.socket.on("ping", () => t.fail("who is not authenticated gets no heartbeat"))
  await until("three heartbeats", () => checkpoints(client).length >= 3)
  t.ok(pings >= 3)
  t.ok(client.messages.filter(({ type }) => type === "ping").length >= 3)
  t.ok(client.messages.length < 15, "and no more than that")
  for (const cursor of checkpoints(client)) t.match(cursor, /^[0-9a-z]+:\d+:\d+:[\d,]*$/)
  t.equal(silent.messages.length, 0)
  t.same(client.changes(), [])
})

t.test("checkpoints go up, cover only what was sent, and come about once a second", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect({}, "?channels=committee:1")
  const writer = await db.session()
  const begun = Date.now()
  while (checkpoints(client).length < 4) {
    await writer.query("insert into vote (committee_id) values (1), (2)")
  }
  const elapsed = (Date.now() - begun) / 1_000
  t.ok(elapsed > 2, `4 checkpoints took ${elapsed} s`)
  await db.query("insert into vote (committee_id, votes) values (1, 77)")
  await client.first("the last", ({ data }) => data?.votes === 77)
  await client.first("a checkpoint behind it", (message) => {
    const last = client.messages.findIndex(({ data }) => data?.votes === 77)
    return isCheckpoint(message) && client.messages.indexOf(message) > last
  })
  const found = checkpoints(client)
  for (const [index, cursor] of found.entries()) {
    const [{ ordered } = { ordered: false }] = await db.query<{ ordered: boolean }>(
      "select relay.contains($1::pg_snapshot, $2::pg_snapshot) as ordered",
      [snapshotOf(cursor), snapshotOf(found[index - 1] ?? client.messages[0]?.cursor)],
    )
    t.ok(ordered, "contains the one before")
    const behind = client.messages.findIndex((message) => message.cursor === cursor && isCheckpoint(message))
    const sent = new Set(client.messages.slice(0, behind).map(({ id }) => id))
    const owed = new Set((await after(db, cursor)).map(({ id }) => id))
    const early = client.changes().filter(({ id }) => !sent.has(id) && !owed.has(String(id)))
    t.same(early, [], "what it covers was sent before it")
  }
  const since = new Set((await after(db, found.at(-1))).map(({ id }) => id))
  t.notOk(
    client.changes().some(({ id }) => since.has(String(id))),
    "the last one covers all, without a heartbeat",
  )
})

t.test("who never answers is taken for dead; who answers in either way is not", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { HEARTBEAT_SECONDS: "1" })
  const dead = await relay.open("/ws", { headers: { authorization: `Bearer ${token()}` }, autoPong: false })
  const alive = await relay.connect({ sub: "8" })
  const speaking = await relay.open("/ws", {
    headers: { authorization: `Bearer ${token({ sub: "9" })}` },
    autoPong: false,
  })
  speaking.socket.on("message", (data) => {
    if (data.toString() === '{"type":"ping"}') speaking.send({ type: "pong" })
  })
  t.equal(await ending(dead), 4012)
  for (const client of [alive, speaking]) {
    client.send({ type: "ping" })
    await client.first("pong", ({ type }) => type === "pong")
  }
})

t.test("a socket that takes nothing for ten seconds is a slow consumer, however little waits", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { LANE_BUFFER_MB: "64" })
  const stopped = await relay.connect()
  stopped.socket.pause()
  await db.query("insert into guarantee (note) select repeat('x', 8000) from generate_series(1, 2000)")
  const closes = () => closesOf(relay)
  await until("it is closed", async () => (await closes()).length > 0)
  t.match(await closes(), [{ labels: { code: "4008" }, value: 1 }])
  await until(
    "and cut, since it does not take the close frame either",
    () => relay.relay.status().hub.connections === 0,
  )
  t.equal(relay.relay.status().hub.lanes, 0)
})

t.test("whoever takes what waits for it is not dead, however long its line needs", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { HEARTBEAT_SECONDS: "1", LANE_BUFFER_MB: "128" })
  const line = await startProxy(t, Number(new URL(relay.url).port))
  const { socket, closed, changes } = await openClient(t, `ws://127.0.0.1:${line.port}/ws?token=${token()}`)
  let ended: unknown
  void closed.then((end) => {
    ended = end
  })
  await until("it is in", () => socket.readyState === socket.OPEN)
  line.limit(SLOW_BYTES)
  await db.query(`insert into vote (entered_by) select repeat('x', 5000) from generate_series(1, ${MANY})`)
  let known = -1
  while (changes().length < MANY && ended === undefined) {
    await until("some more", () => changes().length > known || ended !== undefined)
    known = changes().length
  }
  t.equal(ended, undefined)
  t.equal(changes().length, MANY)
})

t.test("the answers to the relay's pings are no requests of the user's", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { HEARTBEAT_SECONDS: "1", MAX_FRAME_RATE_PER_USER: "0.5" })
  const clients = await Promise.all(Array.from({ length: 20 }, () => relay.connect()))
  await until("each was asked four times", () => clients.every((client) => checkpoints(client).length >= 4))
  for (const { socket } of clients) t.equal(socket.readyState, socket.OPEN)
  const [first] = clients as [Client]
  for (let n = 0; n < 300; n++) first.socket.pong()
  t.equal((await first.closed).code, 4013, "so many are too many of a connection")
})
