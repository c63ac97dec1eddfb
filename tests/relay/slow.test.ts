/** Readers that do not keep up, and bursts that must not cut off anybody who reads. */

import t from "tap"
import type { Client } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { closesOf, metricOf, startPatientRelay, startRelay, type TestRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** More than the kernel and the relay hold for a socket that is not read: 20 MB. */
const STUFFING_ROWS = 2_500
const MANY = 60
const MB = 1_048_576

async function stuff(db: Database): Promise<void> {
  await db.query(
    `insert into guarantee (committee_id, note) select 1, repeat('x', 8000) from generate_series(1, ${STUFFING_ROWS})`,
  )
}

async function closes(relay: TestRelay): Promise<Record<string, number>> {
  return Object.fromEntries((await closesOf(relay)).map(({ labels, value }) => [labels.code, value]))
}

const ids = (client: Client) => client.changes().map(({ id }) => id)

/** What lies after a cursor, as PostgreSQL says it. */
async function after(db: Database, cursor: unknown): Promise<string[]> {
  const snapshot = String(cursor).replace(/^[^:]*:/, "")
  const rows = await db.query<{ id: string }>(
    "select seq::text as id from relay.change where not pg_visible_in_snapshot(xid, $1::pg_snapshot) order by seq",
    [snapshot],
  )
  return rows.map(({ id }) => id)
}

/** The ids, once each. */
const distinct = (...clients: Client[]) => [...new Set(clients.flatMap(ids))].sort(byNumber)

t.test(
  "a client that falls off its lane's ring is closed as a slow consumer, and resumes; one that reads gets everything",
  async (t) => {
    const db = await database(t)
    // However long it takes nothing: it is what it has missed that counts.
    const relay = await startPatientRelay(t, db, { LANE_BUFFER_MB: "1" })
    const stopped = await relay.connect()
    const reading = await relay.connect()
    stopped.socket.pause()
    await stuff(db)
    await reading.count(STUFFING_ROWS)
    await until("the slow one is gone", () => relay.relay.status().hub.connections === 1)
    t.same(await closes(relay), { 4008: 1 })
    stopped.socket.resume()
    t.match((await stopped.closed).code, /^(4008|1006)$/, "a close frame may not pass a stuffed socket")
    t.ok(stopped.changes().length < STUFFING_ROWS)
    t.same(ids(stopped), ids(reading).slice(0, stopped.changes().length), "up to there nothing was left out")
    const cursor = stopped.messages.findLast((message) => message.cursor !== undefined)?.cursor
    const back = await relay.connect({}, `?cursor=${cursor}`)
    t.match(back.messages[0], { recovered: true })
    const missed = await after(db, cursor)
    await back.count(missed.length)
    t.same(ids(back), missed)
    t.same(distinct(stopped, back), ids(reading))
  },
)

t.test(
  "a lane holds no more than its ring for any number who do not read, and a socket little",
  async (t) => {
    const db = await database(t)
    const relay = await startPatientRelay(t, db, { LANE_BUFFER_MB: "32" })
    const many = await Promise.all(Array.from({ length: MANY }, () => relay.connect()))
    const reading = await relay.connect()
    for (const { socket } of many) socket.pause()
    await stuff(db)
    await reading.count(STUFFING_ROWS)
    t.equal(relay.relay.status().hub.connections, MANY + 1, "they are let be")
    const [sockets, lanes] = [
      await metricOf(relay, "relay_queued_bytes"),
      await metricOf(relay, "relay_lane_bytes"),
    ]
    t.ok(sockets > 0 && sockets < MANY * 0.25 * MB, `${sockets / MB} MB of the 20 that each wants`)
    t.ok(lanes > 10 * MB && lanes < 32 * MB, `${lanes / MB} MB`)
    await stuff(db)
    await reading.count(2 * STUFFING_ROWS)
    await until("they have fallen off", () => relay.relay.status().hub.connections === 1)
    t.same(await closes(relay), { 4008: MANY })
    await until("nothing is held", async () => (await metricOf(relay, "relay_queued_bytes")) === 0)
    // The lane is trimmed when it is next used.
    await db.query("insert into vote default values")
    await reading.count(2 * STUFFING_ROWS + 1)
    await until("for nobody", async () => (await metricOf(relay, "relay_lane_bytes")) === 0)
  },
)

t.test("one INSERT of many rows reaches who reads, beside one who has read nothing of it", async (t) => {
  const db = await database(t)
  const relay = await startPatientRelay(t, db)
  const rows = 10_000
  for (const query of ["", "?types=guarantee_update"]) {
    const reading = await relay.connect()
    const paused = await relay.connect({ sub: "8" }, query)
    paused.socket.pause()
    await db.query(
      "insert into guarantee (committee_id, note) select 1, repeat('x', 2000) from generate_series(1, $1)",
      [rows],
    )
    await reading.count(rows)
    await db.query("insert into vote default values")
    t.match(await reading.first("the next change", ({ type }) => type === "voting_update"), {
      action: "create",
    })
    t.equal(new Set(ids(reading)).size, rows + 1, "all of it, and what came then")
    t.equal(relay.relay.status().hub.connections, 2, "and the other is let be")
    t.ok(paused.changes().length < rows / 2, `it has ${paused.changes().length} rows`)
    paused.socket.resume()
    await paused.count(rows)
    for (const { socket } of [reading, paused]) socket.close()
    await until("both are gone", () => relay.relay.status().hub.connections === 0)
  }
})

t.test("a COPY of 8,625 rows reaches nine clients whole and cuts off nobody", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { LANE_BUFFER_MB: "1" })
  const queries = [
    "",
    "",
    "",
    "",
    "",
    "",
    "?channels=election:1",
    "?channels=election:1",
    "?channels=committee:3",
  ]
  const clients = await Promise.all(queries.map((query) => relay.connect({}, query)))
  await db.query(
    "insert into vote (election_id, committee_id, candidate_id, votes) select 1, 3, 1 + n % 4, n from generate_series(1, 8625) n",
  )
  for (const client of clients) {
    const changes = await client.count(8_625)
    t.equal(new Set(ids(client)).size, 8_625)
    t.equal(changes.length, 8_625)
  }
  t.same(await closes(relay), {})
})

t.test(
  "30,000 rows of one statement arrive whole, once and in order, and end with a checkpoint; who connects in the middle misses nothing after its cursor",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const first = await relay.connect()
    const writer = await db.session()
    const busy = await db.session()
    let done = false
    // Commits of others go on all the time.
    const others = (async () => {
      while (!done) await busy.query("insert into attendance (committee_id) values (1)")
    })()
    const bulk = writer.query("insert into vote (votes) select generate_series(1, 30000)")
    await first.count(5_000)
    const second = await relay.connect()
    t.ok(first.changes().length < 30_000, "that was the middle")
    await bulk
    await first.count(30_000)
    await first.first("the last row", ({ data }) => data?.votes === 30_000)
    const third = await relay.connect()
    done = true
    await others
    await db.query("insert into guarantee (voter_name) values ('the last')")
    const everybody = [first, second, third]
    for (const client of everybody)
      await client.first("the last", ({ data }) => data?.voter_name === "the last")
    for (const client of everybody) {
      const cursor = client.messages[0]?.cursor
      t.same(differences(ids(client), await after(db, cursor)), NONE)
    }
    const votes = first.changes().filter(({ type }) => type === "voting_update")
    t.equal(votes.length, 30_000)
    t.equal(
      votes.findIndex(({ data }, index) => data?.votes !== index + 1),
      -1,
      "in order",
    )
    t.equal(new Set(votes.map(({ tx }) => tx?.id)).size, 1)
    const checkpoint = first.messages.slice(first.messages.indexOf(votes.at(-1) as never)).find(isCheckpoint)
    const uncovered = new Set(await after(db, checkpoint?.cursor))
    t.notOk(
      votes.some(({ id }) => uncovered.has(String(id))),
      "the checkpoint behind it covers it",
    )
    const within = first.messages.slice(
      first.messages.indexOf(votes[0] as never),
      first.messages.indexOf(votes.at(-1) as never),
    )
    t.notOk(within.some(isCheckpoint), "no checkpoint lies inside of it")
  },
)

const NONE = { missing: [], extra: [], repeated: [] }

function differences(got: unknown[], wanted: unknown[]) {
  const found = new Set(got)
  const expected = new Set(wanted)
  return {
    missing: [...expected].filter((id) => !found.has(id)),
    extra: [...found].filter((id) => !expected.has(id)),
    repeated: got.length === found.size ? [] : got.filter((id, index) => got.indexOf(id) !== index),
  }
}

const byNumber = (a: unknown, b: unknown) => Number(a) - Number(b)
const isCheckpoint = ({ type }: { type: string }) => type === "checkpoint"

t.test("a client that asks and never reads is not buffered for without end", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { MAX_FRAME_RATE: "0", MAX_FRAME_RATE_PER_USER: "0" })
  const client = await relay.connect()
  client.socket.pause()
  const ping = JSON.stringify({ type: "ping", request: "x".repeat(64) })
  const gone = () => relay.relay.status().hub.connections === 0
  const stalled = () => client.socket.bufferedAmount > 8 * 1_048_576
  for (let asked = 0; asked < 300_000 && !gone() && !stalled(); asked++) {
    client.socket.send(ping)
    if (asked % 500 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  // Whoever does not take the close frame either is cut a second later.
  await until("it is closed, or the relay reads no more of its questions", () => gone() || stalled())
})

t.test("a client that joins a channel while much waits for it still gets all of it, in order", async (t) => {
  const db = await database(t)
  const relay = await startPatientRelay(t, db, { LANE_BUFFER_MB: "64" })
  const slow = await relay.connect({}, "?channels=committee:1")
  const quick = await relay.connect({}, "?channels=committee:1")
  slow.socket.pause()
  await stuff(db)
  await quick.count(STUFFING_ROWS)
  slow.send({ type: "subscribe", channels: ["committee:2"] })
  slow.send({ type: "subscribe", channels: ["committee:3"] })
  await until("the relay took both", () => relay.relay.status().hub.channels["committee:3"] === 1)
  await db.query("insert into guarantee (committee_id) values (2)")
  slow.socket.resume()
  const changes = await slow.count(STUFFING_ROWS + 1)
  t.strictSame(ids(slow), [...ids(slow)].sort(byNumber))
  t.match(changes.at(-1), { data: { committee_id: 2 } })
  const answered = slow.messages.findIndex(({ type }) => type === "subscribed")
  t.equal(
    slow.messages.slice(0, answered).filter(({ action }) => action === "create").length,
    STUFFING_ROWS,
    "what its cursor covers was sent before it",
  )
})
