/** relay.pause() and relay.resume(): nothing is captured in between, and nobody is told otherwise. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { leaseStands } from "../helpers/lease.ts"
import { backendOf, waitsForLock } from "../helpers/log.ts"
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

t.test("who sets a part of the state leaves the rest as others set it at the same time", async (t) => {
  const db = await database(t)
  const [other, caller] = [await db.session(), await db.session()]
  const pid = await backendOf(caller)
  const state = async () => (await db.query<{ it: number }>("select relay.state() as it"))[0]?.it
  for (const [call, slot, after] of [
    ["select relay.pause()", 1, 8 + 1],
    ["select relay.resume()", 2, 2],
  ] as const) {
    await other.query("begin; select from relay.horizon for update")
    const calling = caller.query(call)
    await waitsForLock(db, pid)
    await other.query(`select relay.set_state(slot => ${slot}); commit`)
    await calling
    t.equal(await state(), after, call)
  }
  await other.query("begin; select from relay.horizon for update")
  await caller.query("select relay.set_lease(1000)")
  t.notOk(await leaseStands(db), "a lease waits for nobody: the next read takes it")
  await other.query("commit")
  await caller.query("select relay.set_lease(0)")
  t.ok(await leaseStands(db))
  await other.query("begin; select from relay.horizon for update")
  await until("it is over", async () => {
    const [row] = await db.query<{ it: boolean }>(
      "select relay.lease_in_force(pg_sequence_last_value('relay.lease')) as it",
    )
    return row?.it === false
  })
  t.same((await caller.query("select relay.end_lease() as it")).rows, [{ it: false }], "nor does its end")
  await other.query("commit")
  t.same((await caller.query("select relay.end_lease() as it")).rows, [{ it: true }])
  t.equal(await state(), 2)
})
