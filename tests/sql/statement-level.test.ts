/** A table that is captured by statement: what turns its trigger away from the usual way, in a session that has gone it. */

import t, { type Test } from "tap"
import { type Database, database } from "../helpers/database.ts"
import { missing, readLog, readWritten, rotate, VERSIONS } from "../helpers/log.ts"
import { logged, watch } from "../helpers/watch.ts"

/** A table captured by statement, and a session that has written to it often enough for its plans to be kept. */
async function world(t: Test, version: (typeof VERSIONS)[number], columns = "id int primary key, note text") {
  const db = await database(t, { version })
  await db.query(`create table line (${columns}); select relay.track('line', level => 'statement')`)
  const writer = await db.session(db.url)
  let id = 0
  const insert = async (rows = 1) => {
    await writer.query(`insert into line select ${id} + n from generate_series(1, ${rows}) n`)
    id += rows
  }
  for (let n = 0; n < 7; n++) await insert()
  return { db, writer, insert }
}

const places = async (db: Database) =>
  (
    await db.query<{ n: number }>(
      "select count(*)::int as n from relay.change_0 union all select count(*)::int from relay.change_1",
    )
  ).map(({ n }) => n)

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("a pause ends it, and resuming brings it back", async (t) => {
      const { db, insert } = await world(t, version)
      await db.query("select relay.pause()")
      t.same(await logged(db, () => insert(2)), [])
      await db.query("select relay.resume()")
      t.same(await logged(db, () => insert(2)), ["line insert", "line insert"])
    })

    t.test("after a rotation it fills the next table, before and after its code is renewed", async (t) => {
      const { db, insert } = await world(t, version)
      t.same(await places(db), [7, 0])
      await rotate(db)
      await insert(2)
      t.same(await places(db), [7, 2])
      await db.query("select relay.renew()")
      await insert(2)
      t.same(await places(db), [7, 4])
    })

    t.test("the bulk flag of a transaction holds for it alone", async (t) => {
      const { db, writer, insert } = await world(t, version)
      for (const [flag, told] of [
        ["on", []],
        ["summary", ["line bulk_load insert"]],
        ["off", ["line insert", "line insert"]],
      ] as const) {
        const loaded = await logged(db, async () => {
          await writer.query("begin")
          await writer.query("select set_config('relay.bulk_load', $1, true)", [flag])
          await insert(2)
          await writer.query("commit")
        })
        t.same(loaded, told, flag)
        t.same(await logged(db, () => insert()), ["line insert"], `after ${flag}`)
      }
    })

    t.test("a renamed table is told under its old name until another has that", async (t) => {
      const { db, writer } = await world(t, version)
      await db.query("alter table line rename to line_old")
      t.same(await logged(db, () => writer.query("insert into line_old values (101), (102)")), [
        "line insert",
        "line insert",
      ])
      await db.query("create table line (id int primary key, note text)")
      t.same(await watch(db), ["line"])
      t.same(
        await logged(db, () =>
          writer.query("insert into line_old values (103); insert into line values (1)"),
        ),
        [],
      )
      await db.query("drop table line; alter table line_old rename to line")
      t.same(await logged(db, () => writer.query("insert into line values (104)")), ["line insert"])
    })

    t.test("a table in another schema with the same name is another one", async (t) => {
      const { db, writer } = await world(t, version)
      await db.query(
        "create schema elsewhere; alter table line set schema elsewhere; create table line (id int primary key, note text)",
      )
      t.same(
        await logged(db, () =>
          writer.query("insert into elsewhere.line values (101); insert into line values (1)"),
        ),
        [],
      )
    })

    t.test("its function on a stranger's table captures nothing", async (t) => {
      const { db } = await world(t, version)
      await db.query("create table stranger (like line)")
      await db.query(
        `do $$ begin execute format('create trigger it after insert on stranger referencing new table as new_rows for each statement execute function relay.%I()',
           (select proname from pg_proc where proname ~ '^capture_rows_' and prosrc ~ 'public.line' limit 1)); end $$`,
      )
      t.same(await logged(db, () => db.query("insert into stranger values (1, 'x'), (2, 'y')")), [])
    })

    t.test("an altered table is to be loaded again until the code is renewed", async (t) => {
      const { db, writer } = await world(t, version)
      await db.query("alter table line add extra text, drop note")
      t.same(await logged(db, () => writer.query("insert into line values (101, 'x')")), [
        "line bulk_load insert",
      ])
      await db.query("select relay.renew()")
      await writer.query("insert into line values (102, 'y')")
      t.same((await readLog(db)).at(-1)?.newText, '{"id":102}')
    })

    t.test("rows of a table that inherits from it are not its own", async (t) => {
      const { db, writer } = await world(t, version)
      await db.query("create table heir (more text) inherits (line)")
      t.same(
        await logged(db, () =>
          writer.query("insert into heir values (101, 'x', 'y'); insert into line values (102)"),
        ),
        ["line insert"],
      )
    })

    t.test("rows that come while it is part of a tree are told if they come to it directly", async (t) => {
      const { db, writer } = await world(t, version)
      await db.query(
        "create table root (id int, note text) partition by range (id); alter table root attach partition line for values from (0) to (1000)",
      )
      t.same(await logged(db, () => writer.query("insert into line values (101)")), ["line insert"])
    })

    t.test(
      "of a row of more than 64 kB only key and channels are told, whatever its columns are called",
      async (t) => {
        const { db, writer } = await world(
          t,
          version,
          "r int primary key, r0 text, p text, k text, s text, new_rows text",
        )
        await db.query("alter table line alter p set storage external")
        await writer.query(
          "insert into line values (101, null, repeat('x', 70000), 'k', 's', 'n'), (102, null, 'small', 'k', 's', 'n')",
        )
        t.same(
          (await readLog(db)).slice(-2).map(({ oversize, newText }) => [oversize, newText]),
          [
            [true, '{"r":101}'],
            [false, '{"r":102,"r0":null,"p":"small","k":"k","s":"s","new_rows":"n"}'],
          ],
        )
      },
    )

    t.test("nothing claims that its rows were untouched since", async (t) => {
      const { db, insert } = await world(t, version)
      await insert(2)
      for (const { data } of await readWritten(db)) t.match(data, /^\[\{/)
    })
  })
}
