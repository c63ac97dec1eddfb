/** relay.pause() and relay.resume(): capture off and on for everybody, and nobody left believing that nothing is missing. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { missing, readOps, VERSIONS } from "../helpers/log.ts"
import { until } from "../helpers/wait.ts"

const snapshot = async (db: Database) =>
  (await db.query<{ it: string }>("select pg_current_snapshot()::text as it"))[0]?.it as string

/** Whether a cursor may have missed something. */
const tooOld = async (db: Database, cursor: string) =>
  (
    await db.query<{ it: boolean }>(
      "select not relay.contains($1::pg_snapshot, h) as it from relay.horizon",
      [cursor],
    )
  )[0]?.it

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("while it is paused nothing is captured, in any session and any open transaction", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table parts (id int primary key) partition by list (id); create table part_1 partition of parts default;
        select relay.track('parts')`)
      const writer = await db.session()
      await writer.query("begin isolation level serializable; insert into vote (votes) values (1)")
      await db.query("select relay.pause()")
      await writer.query(
        "insert into vote (votes) values (2); update vote set votes = 3; delete from vote where votes = 3; insert into parts values (1); truncate attendance; commit",
      )
      await db.query(
        "set relay.bulk_load = 'summary'; insert into vote (votes) values (9); update vote set votes = 8; reset relay.bulk_load",
      )
      t.same(await readOps(db), ["insert"])
      await db.query("select relay.resume(); insert into vote (votes) values (4)")
      t.same(await readOps(db), ["insert", "insert"])
    })

    t.test("it takes no lock and works while the log cannot be written", async (t) => {
      const db = await database(t, { version })
      const holder = await db.session()
      await holder.query("begin; lock table relay.change_0, vote in access exclusive mode")
      await db.query("set lock_timeout = '100ms'; select relay.pause()")
      await holder.query(
        "commit; alter table relay.change_0 add constraint full_disk check (false) not valid",
      )
      await db.query("insert into vote default values")
    })

    t.test(
      "every cursor from before the resume is too old, those of the pause and in open transactions too",
      async (t) => {
        const db = await database(t, { version })
        const before = await snapshot(db)
        const open = await db.session()
        await db.query("select relay.pause()")
        await open.query("begin; insert into vote (votes) values (1)")
        await db.query("insert into vote (votes) values (2)")
        const during = await snapshot(db)
        await db.query("select relay.resume()")
        const afterwards = await snapshot(db)
        await db.query("insert into attendance default values")
        const later = await snapshot(db)
        t.equal(await tooOld(db, before), true, "from before")
        t.equal(await tooOld(db, during), true, "of the pause: its holder never heard of what was written")
        t.equal(await tooOld(db, afterwards), true, "a transaction that wrote in the pause is still open")
        t.equal(await tooOld(db, later), true)
        await open.query("commit")
        // Other tests' transactions of the same moment make a cursor too old as well, until they end.
        await until("a good cursor", async () => !(await tooOld(db, await snapshot(db))))
      },
    )

    t.test("a cursor of a pause in which the last write was committed is too old after it", async (t) => {
      const db = await database(t, { version })
      await db.query("select relay.pause()")
      await db.query("insert into vote (votes) values (2)")
      const during = await snapshot(db)
      await db.query("select relay.resume()")
      t.equal(await tooOld(db, during), true)
      // Other tests' transactions of the same moment make a cursor too old as well, until they end.
      await until("a good cursor", async () => !(await tooOld(db, await snapshot(db))))
    })

    t.test("resume without a pause cuts nobody off, and both may be called twice", async (t) => {
      const db = await database(t, { version })
      const cursor = await snapshot(db)
      await db.query("select relay.resume()")
      t.equal(await tooOld(db, cursor), false)
      await db.query("select relay.pause(), relay.pause()")
      await db.query("select relay.resume()")
      await db.query("select relay.resume()")
      t.equal(await tooOld(db, cursor), true)
    })

    t.test("it is reported, and a right of the owner alone", async (t) => {
      const db = await database(t, { version })
      await db.query("select relay.pause()")
      const rows = await db.query<{ problem: string }>("select problem from relay.tracked")
      for (const { problem } of rows) t.match(problem, /paused: select relay.resume\(\)/)
      const writer = await db.session(db.writerUrl)
      await t.rejects(writer.query("select relay.pause()"), { code: "42501" })
      await t.rejects(writer.query("select relay.resume()"), { code: "42501" })
    })
  })
}
