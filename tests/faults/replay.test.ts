/** Replays under stress: slow clients, rotation, eviction, a lost database, thousands at once, other rights. */

import t, { type Test } from "tap"
import type { Client } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow, rotate } from "../helpers/log.ts"
import { startProxy } from "../helpers/proxy.ts"
import { metricOf, startPatientRelay, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** Rows that are large enough to fill sockets, in several transactions. */
async function fill(db: Database, rows: number): Promise<void> {
  for (let i = 0; i < rows; i += 1_000)
    await db.query(
      "insert into guarantee (committee_id, voter_name, note) select 1 + g % 5, $1 || g, repeat('x', 2000) from generate_series(1, 1000) g",
      [`${i}:`],
    )
}

/** Connects and reads nothing until told. */
async function comeBackSlowly(relay: TestRelay, cursor: string, claims = {}): Promise<Client> {
  const client = await relay.open(`/ws?cursor=${cursor}`, {
    headers: { authorization: `Bearer ${token(claims)}` },
  })
  client.socket.pause()
  return client
}

const ended = (client: Client) =>
  client.first(
    "the end of the replay",
    (message) => message.type === "checkpoint" && message.replayed !== undefined,
  )

/** Every row that is in the table was told once, in the order of each transaction. */
async function isWhole(t: Test, db: Database, client: Client): Promise<void> {
  const rows = await db.query<{ id: number }>("select id from guarantee order by id")
  const told = client.changes().map(({ key }) => Number(key?.id))
  t.equal(told.length, rows.length, "as many changes as rows")
  t.same(
    [...told].sort((a, b) => a - b),
    rows.map(({ id }) => Number(id)),
    "each once",
  )
}

t.test("a slow client is paced: it gets all, once, while others come and live ones go on", async (t) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  const cursor = await cursorNow(db)
  await fill(db, 12_000)
  const relay = await startPatientRelay(t, db, { REPLAY_BUFFER_MB: "1" })
  const live = await relay.connect({}, "?channels=election_updates")
  const slow = await comeBackSlowly(relay, cursor)
  await until(
    "its replay is cut",
    async () => (await metricOf(relay, "relay_log_reads_total", 'result="cut"')) > 0,
  )
  t.equal(relay.relay.status().hub.replaying, 1)
  const idle = await db.query(
    "select 1 from pg_stat_activity where application_name = 'commitcast feed' and state like 'idle in transaction%' and datname = current_database()",
  )
  t.same(idle, [], "nothing holds a snapshot for it")
  await db.query("insert into guarantee (committee_id, voter_name) values (1, 'live')")
  t.match(await live.count(1), [{ data: { voter_name: "live" } }])
  const quick = await relay.connect({}, `?cursor=${cursor}`)
  await ended(quick)
  slow.socket.resume()
  await ended(slow)
  t.match(slow.messages[0], { type: "connection_success", recovered: true, cursor })
  await db.query("insert into guarantee (committee_id, voter_name) values (1, 'after')")
  for (const client of [slow, quick]) {
    await client.first("the last", ({ data }) => data?.voter_name === "after")
    await isWhole(t, db, client)
  }
  t.ok((await metricOf(relay, "relay_log_reads_total", 'result="cut"')) >= 1)
})

t.test("memory that forgets in the middle of a replay is continued from the log", async (t) => {
  const db = await database(t)
  const relay = await startPatientRelay(t, db, { REPLAY_BUFFER_MB: "64" })
  const cursor = await cursorNow(db)
  await fill(db, 7_000)
  const read = () => metricOf(relay, "relay_events_total", 'table="public.guarantee",op="insert"')
  await until("they are in memory", async () => (await read()) === 7_000)
  const reader = await relay.connect({}, `?cursor=${cursor}`)
  await ended(reader)
  t.equal(await metricOf(relay, "relay_resume_total", 'result="memory"'), 1)
  const slow = await comeBackSlowly(relay, cursor)
  await until(
    "it is under way",
    async () => (await metricOf(relay, "relay_replayed_total", 'source="memory"')) > 7_500,
  )
  await fill(db, 8_000)
  await reader.first("the last", ({ data }) => String(data?.voter_name).startsWith("7000:"))
  slow.socket.resume()
  await ended(slow)
  await slow.count(15_000)
  t.equal(await metricOf(relay, "relay_resume_total", 'result="log"'), 1)
  await isWhole(t, db, slow)
})

t.test(
  "a replay that is overtaken by the rotation ends with 4010, and the next attempt is told too_old",
  async (t) => {
    const db = await database(t)
    await db.query("select relay.meet_lineage()")
    const cursor = await cursorNow(db)
    await fill(db, 8_000)
    const relay = await startPatientRelay(t, db, { REPLAY_BUFFER_MB: "1" })
    const slow = await comeBackSlowly(relay, cursor)
    await until("it is cut", async () => (await metricOf(relay, "relay_log_reads_total", 'result="cut"')) > 0)
    for (let i = 0; i < 3; i++) await rotate(db)
    slow.socket.resume()
    t.match(await slow.closed, { code: 4010 })
    const again = await relay.connect({}, `?cursor=${cursor}`)
    t.match(again.messages[0], { recovered: false, reason: "too_old" })
  },
)

t.test(
  "a database lost in the middle ends the replay with 4011; the same cursor is good afterwards",
  async (t) => {
    const db = await database(t)
    await db.query("select relay.meet_lineage()")
    const cursor = await cursorNow(db)
    await fill(db, 8_000)
    const proxy = await startProxy(t, db.port)
    const relay = await startPatientRelay(
      t,
      { url: db.url.replace(`:${db.port}`, `:${proxy.port}`) },
      { REPLAY_BUFFER_MB: "1" },
    )
    const slow = await comeBackSlowly(relay, cursor)
    await until("it is cut", async () => (await metricOf(relay, "relay_log_reads_total", 'result="cut"')) > 0)
    proxy.refuse()
    proxy.cut()
    slow.socket.resume()
    t.match(await slow.closed, { code: 4011 })
    proxy.heal()
    await relay.relay.whenReady()
    const again = await relay.connect({}, `?cursor=${cursor}`)
    await ended(again)
    await isWhole(t, db, again)
  },
)

t.test("hundreds who return at once after a restart cost a handful of reads", async (t) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  const cursor = await cursorNow(db)
  await fill(db, 1_000)
  const relay = await startRelay(t, db)
  const clients = await Promise.all(
    Array.from({ length: 300 }, (_, i) =>
      relay.connect({ sub: String(i) }, `?cursor=${cursor}&channels=committee:${1 + (i % 5)}`),
    ),
  )
  for (const client of clients) await ended(client)
  for (const [i, client] of clients.entries()) {
    if (client.changes().length !== 200) t.fail(`client ${i} has ${client.changes().length} of 200`)
  }
  const reads = await metricOf(relay, "relay_log_reads_total", 'result="done"')
  t.ok(reads >= 1 && reads <= 6, `${reads} reads`)
})

t.test("new rights hold in the middle of a replay", async (t) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  const cursor = await cursorNow(db)
  await fill(db, 12_000)
  const relay = await startPatientRelay(t, db, { REPLAY_BUFFER_MB: "1" })
  const slow = await comeBackSlowly(relay, cursor)
  await until("it is cut", async () => (await metricOf(relay, "relay_log_reads_total", 'result="cut"')) > 0)
  slow.send({ type: "authenticate", token: token({ committees: [3] }), request: "narrow" })
  slow.send({ type: "subscribe", channels: ["committee:3"], request: "later" })
  await until(
    "they are known",
    async () => (await metricOf(relay, "relay_client_frames_total", 'type="subscribe"')) > 0,
  )
  slow.socket.resume()
  await slow.first("the deferred answer", ({ request }) => request === "later")
  const at = slow.messages.findIndex(({ request }) => request === "narrow")
  const after = slow.messages.slice(at).filter(({ action }) => action !== undefined)
  t.ok(at > 0 && after.length > 0, `${after.length} changes after the new token`)
  t.same(
    after.filter(({ data }) => data?.committee_id !== 3),
    [],
  )
  t.ok(
    slow.messages.indexOf(await ended(slow)) < slow.messages.findIndex(({ request }) => request === "later"),
  )
})

t.test("what waited for the end of a replay is judged by the token of then", async (t) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  const cursor = await cursorNow(db)
  await fill(db, 8_000)
  await db.query(
    `select relay.broadcast('committee:5', '"missed of 5"'), relay.broadcast('committee:3', '"missed of 3"')`,
  )
  const relay = await startPatientRelay(t, db, { REPLAY_BUFFER_MB: "1" })
  const slow = await comeBackSlowly(relay, `${cursor}&channels=committee:3,committee:5`)
  await until("it is cut", async () => (await metricOf(relay, "relay_log_reads_total", 'result="cut"')) > 0)
  slow.send({ type: "subscribe", channels: ["committee:4"], request: "early" })
  slow.send({ type: "authenticate", token: token({ committees: [3] }), request: "narrow" })
  slow.send({ type: "ping" })
  await until(
    "they are known",
    async () => (await metricOf(relay, "relay_client_frames_total", 'type="ping"')) > 0,
  )
  t.equal(relay.relay.status().hub.replaying, 1, "in the middle of the replay")
  slow.socket.resume()
  const answer = await slow.first("the deferred answer", ({ request }) => request === "early")
  t.match(answer, { type: "error", code: "forbidden_channel" })
  t.ok(slow.messages.indexOf(await ended(slow)) < slow.messages.indexOf(answer), "after the replay")
  await db.query(
    `select relay.broadcast('committee:4', '"4"'), relay.broadcast('committee:5', '"5"'), relay.broadcast('committee:3', '"3"')`,
  )
  await slow.first("what it may see", ({ payload }) => payload === "3")
  t.same(
    slow.messages.filter(({ type }) => type === "message").map(({ payload }) => payload),
    ["missed of 3", "3"],
  )
})

t.test("a client that goes away in the middle leaves nothing behind", async (t) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  const cursor = await cursorNow(db)
  await fill(db, 8_000)
  const relay = await startPatientRelay(t, db, { REPLAY_BUFFER_MB: "1" })
  for (let i = 0; i < 5; i++) {
    const client = await comeBackSlowly(relay, cursor)
    client.socket.terminate()
  }
  const slow = await comeBackSlowly(relay, cursor)
  await until("it is cut", async () => (await metricOf(relay, "relay_log_reads_total", 'result="cut"')) > 0)
  slow.socket.terminate()
  await until("it is forgotten", () => relay.relay.status().hub.replaying === 0)
  t.match(relay.relay.status().hub, { connections: 0, users: {}, channels: {} })
})
