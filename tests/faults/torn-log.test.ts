/** Somebody throws away a part of the log by hand: whoever may miss something loads its state again. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { missing, rotate, VERSIONS } from "../helpers/log.ts"
import { metricOf, startRelay } from "../helpers/relay.ts"
import { comeBack, continued, cutOff, keptCursor, refused } from "../helpers/returning.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

const TEARS = {
  "the table that writers fill is emptied": "truncate relay.change_0",
  "all tables are emptied": "truncate relay.change_0, relay.change_1, relay.change_2",
  "a table that nobody fills is emptied": "truncate relay.change_2",
  "rows are deleted": "delete from relay.change_0",
  "rows are changed": "update relay.change_0 set xid = '3'",
  "a table is swapped for another": `create table relay.change_8 (like relay.change_0 including all);
    alter table relay.change_0 rename to change_9; alter table relay.change_8 rename to change_0`,
  "a table that nobody fills is swapped for another": `create table relay.change_8 (like relay.change_2 including all);
    alter table relay.change_2 rename to change_9; alter table relay.change_8 rename to change_2`,
  "rows are taken out and put back":
    "create table held as table relay.change_0; truncate relay.change_0; insert into relay.change_0 table held",
}

/** What may happen to a log that is whole. */
const CARE = [
  "vacuum relay.change_0, relay.change_1, relay.change_2, relay.horizon, relay.lineage",
  "analyze relay.change_0",
  "select relay.admit_relay('writer')",
  "reindex table relay.change_0",
]

const write = (db: Database, votes: number) => db.query("insert into vote (votes) values ($1)", [votes])

for (const version of VERSIONS)
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    for (const [what, sql] of Object.entries(TEARS)) {
      t.test(`${what} while the relay runs: its clients load anew, once`, async (t) => {
        const db = await database(t, { version })
        const relay = await startRelay(t, db)
        const client = await relay.connect()
        await write(db, 1)
        await client.count(1)
        const cursor = await keptCursor(client)
        await db.query(sql)
        await cutOff(t, client)
        await refused(t, relay, db.url, cursor)
        t.equal(await metricOf(relay, "relay_resets_total", 'reason="lineage"'), 1)
        t.match((await relay.relay.report()).status, "ok")
      })

      t.test(`${what} while no relay runs: whoever returns loads anew`, async (t) => {
        const db = await database(t, { version })
        const first = await startRelay(t, db)
        const client = await first.connect()
        await write(db, 1)
        await client.count(1)
        const cursor = await keptCursor(client)
        await first.stop()
        await write(db, 2)
        await db.query(sql)
        await write(db, 3)
        const [{ now } = { now: "" }] = await db.query<{ now: string }>("select relay.cursor() as now")
        t.match(now, /^0:/, "nobody can promise anything yet")
        await refused(t, await startRelay(t, db), db.url, cursor)
      })
    }

    t.test("a rotation hides none of it, whichever table it empties", async (t) => {
      for (const [what, sql] of Object.entries(TEARS)) {
        const db = await database(t, { version })
        await db.query("select relay.meet_lineage()")
        await write(db, 1)
        await db.query(sql)
        for (let rotations = 1; rotations <= 3; rotations++) {
          await rotate(db)
          const [{ now } = { now: "" }] = await db.query<{ now: string }>("select relay.cursor() as now")
          t.match(now, /^0:/, `${what}, then ${rotations} rotations`)
        }
        await db.query("select relay.meet_lineage()")
        const [last] = await db.query(
          "select continues, relay.cursor() as now from relay.lineage order by number desc limit 1",
        )
        t.match(last, { continues: false, now: /^[0-9a-f]{12}:/ })
      }
    })

    t.test("what is done to a log that is whole costs nobody a position", async (t) => {
      const db = await database(t, { version })
      const relay = await startRelay(t, db)
      const client = await relay.connect()
      await write(db, 1)
      await client.count(1)
      const cursor = await keptCursor(client)
      for (const sql of CARE) await db.query(sql)
      await write(db, 2)
      await client.count(2)
      await continued(t, relay, db.url, cursor, [2])
      for (let votes = 10; votes < 16; votes++) {
        const slot = await rotate(db)
        await db.query("select relay.advance_slot($1::smallint)", [slot])
        await write(db, votes)
      }
      await until("all is here", () => client.changes().at(-1)?.data?.votes === 15)
      t.equal(client.socket.readyState, client.socket.OPEN)
      t.equal(await metricOf(relay, "relay_resets_total", 'reason="lineage"'), 0)
      const second = await startRelay(t, db)
      await comeBack(second, await keptCursor(client))
      t.equal(await metricOf(second, "relay_resume_total", 'result="lineage"'), 0)
    })
  })
