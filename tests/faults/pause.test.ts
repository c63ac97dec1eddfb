/** relay.pause() and relay.resume(): nothing is captured in between, and nobody is told otherwise. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.test(
  "while paused nothing is captured and the report says so; after it every client starts anew",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const client = await relay.connect()
    await db.query("insert into vote (votes) values (1)")
    await client.count(1)
    await db.query("select relay.pause()")
    await db.query(
      "insert into vote (votes) values (2); update vote set votes = 3; delete from vote where id = 1; truncate attendance",
    )
    t.match((await relay.relay.report()).tables[0]?.problem, /relay\.resume/)
    t.same(await db.query("select count(*)::int as n from relay.change"), [{ n: 1 }])
    await db.query("select relay.resume()")
    t.equal((await client.closed).code, 4010)
    await until("a position", () => relay.relay.status().ready)
    const again = await relay.connect()
    await db.query("insert into vote (votes) values (4)")
    t.match((await again.count(1))[0], { data: { votes: 4 } })
    t.equal(client.changes().length, 1)
  },
)

t.test("nobody is given a position before those who wrote during the pause have ended", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  const writer = await db.session()
  await db.query("select relay.pause()")
  await writer.query("begin; insert into vote (votes) values (1)")
  await db.query("select relay.resume()")
  await client.closed
  const refused = await relay.connect().then(
    () => "connected",
    (error: Error) => error.message,
  )
  t.match(refused, "503")
  t.notOk(relay.relay.status().ready)
  await writer.query("commit")
  await until("a position", () => relay.relay.status().ready)
  const again = await relay.connect()
  await db.query("insert into vote (votes) values (2)")
  t.match((await again.count(1))[0], { data: { votes: 2 } })
})
