/** The client comes back: every change once, in order, whatever happens to its connections. */

import t, { type Test } from "tap"
import { WebSocket } from "ws"
import type { Database } from "../helpers/database.ts"
import { database } from "../helpers/database.ts"
import { openFeed, type TestFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"
import { buildTable } from "../helpers/table.ts"
import { until } from "../helpers/wait.ts"
import { startWriters } from "../helpers/writers.ts"

t.jobs = 3

const loadVotes = (db: Database) =>
  db
    .query<Record<string, unknown>>("select row_to_json(vote) as row from vote order by id")
    .then((rows) => rows.map(({ row }) => row as Record<string, unknown>))

const logged = async (db: Database) =>
  (await db.query<{ id: string }>("select seq::text as id from relay.change order by change.seq")).map(
    ({ id }) => id,
  )

/** Everything in the log came once, and makes the table that is there. */
async function isWhole(t: Test, db: Database, { changes, count, resyncs, errors }: TestFeed): Promise<void> {
  const ids = await logged(db)
  await count(ids.length)
  const came = changes.map(({ id }) => id)
  t.equal(new Set(came).size, came.length, "no change came twice")
  t.same([...came].sort(), [...ids].sort(), "none is missing")
  const table = buildTable()
  for (const change of changes) table.apply(change)
  t.same(table.faults.slice(0, 3), [], "each row's changes are in order")
  t.same(table.rows(), await loadVotes(db))
  t.same(resyncs, ["no_cursor"], "and nothing had to be loaded")
  // How long it was away is not the matter here.
  t.same(
    errors.filter(({ code }) => code !== "connection"),
    [],
  )
}

t.test("under load, with connections that are cut in the middle of a frame", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  let parts = 0
  let cutting = false
  const proxy = await startProxy(t, Number(new URL(relay.url).port), (data) => {
    // What comes before the cut and is passed on would be taken for the rest of the frame.
    if (cutting) return data.subarray(0, 0)
    if (++parts % 37 !== 0) return data
    cutting = true
    setImmediate(() => {
      proxy.cut()
      cutting = false
    })
    return data.subarray(0, Math.ceil(data.length / 2))
  })
  const follower = openFeed(t, { url: `http://127.0.0.1:${proxy.port}` })
  await follower.reaches("live")
  const writers = await startWriters(t, db, 4)
  await follower.came("waiting", 4)
  await writers.stop()
  await isWhole(t, db, follower)
})

t.test("while the relay is restarted, and by another relay", async (t) => {
  const db = await database(t)
  const first = await startRelay(t, db)
  let present = first.url
  class Moving extends WebSocket {
    constructor(_url: string, protocols: string[]) {
      const url = new URL(_url)
      url.port = new URL(present).port
      super(url, protocols)
    }
  }
  const follower = openFeed(t, { url: first.url, WebSocket: Moving })
  await follower.reaches("live")
  const writers = await startWriters(t, db, 2)
  await follower.count(50)
  const second = await startRelay(t, db)
  present = second.url
  await first.stop()
  await follower.came("live", 2)
  t.match(
    follower.states.find(({ kind }) => kind === "waiting"),
    { cause: "closed with 4000: the relay is stopping: come back within 3 s" },
  )
  await second.stop()
  await follower.came("waiting", 2)
  const third = await startRelay(t, db)
  present = third.url
  await follower.came("live", 3)
  await writers.stop()
  await isWhole(t, db, follower)
})

t.test("when its connection is half open, which only silence tells", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { HEARTBEAT_SECONDS: "1" })
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  const follower = openFeed(t, { url: `http://127.0.0.1:${proxy.port}` })
  await follower.reaches("live")
  await db.query("insert into vote (votes) values (1)")
  await follower.count(1)
  proxy.silence()
  await db.query("insert into vote (votes) values (2)")
  await follower.came("live", 2)
  t.same(
    follower.states
      .slice(3)
      .map(({ kind }) => kind)
      .slice(0, 2),
    ["authenticating", "opening"],
    "it connects again at once",
  )
  await isWhole(t, db, follower)
})

t.test("after a long absence, with much to bring", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  const follower = openFeed(t, { url: `http://127.0.0.1:${proxy.port}` })
  await follower.reaches("live")
  proxy.refuse()
  proxy.cut()
  await follower.came("waiting", 1)
  await db.query("insert into vote (votes) select generate_series(1, 20000)")
  await db.query("update vote set votes = votes + 1")
  const other = await relay.connect()
  await db.query("delete from vote where votes > 10000")
  await other.first("a delete", ({ action }) => action === "delete")
  proxy.heal()
  await isWhole(t, db, follower)
})

t.test("from a page that was made by SQL, with its cursor", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const writers = await startWriters(t, db, 3)
  await until("there is something", () => writers.written() > 20)
  const session = await db.session()
  await session.query("begin isolation level repeatable read read only")
  const cursor = (await session.query("select relay.cursor() as cursor")).rows[0].cursor
  const rows = (await session.query("select row_to_json(vote) as row from vote")).rows.map(({ row }) => row)
  await session.query("commit")
  const { changes, resyncs, count, feed } = openFeed(t, { url: relay.url, cursor })
  const table = buildTable()
  table.load(rows)
  feed.on("change", (change) => table.apply(change))
  await count(100)
  await writers.stop()
  const [last] = (await logged(db)).slice(-1)
  await until("the last change", () => changes.some(({ id }) => id === last))
  t.same(table.faults, [])
  t.same(table.rows(), await loadVotes(db))
  t.same(resyncs, [])
})
