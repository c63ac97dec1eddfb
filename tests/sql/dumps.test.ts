/** Tables that come back from dumps, or under other names: nothing wrong is told of them, and a problem says what to do. */

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import t, { type Test } from "tap"
import { type Database, database } from "../helpers/database.ts"
import { dump, noDump, restore } from "../helpers/dump.ts"
import { missing, readLog, VERSIONS } from "../helpers/log.ts"
import { logged, mend, problemOf, remedyOf, watch } from "../helpers/watch.ts"

const PERSON = `create table person (id int primary key, name text, password text);
  select relay.track('person', exclude => '{password}', type => 'people_update')`

const WRITES = `insert into person (id, name, password) values (7, 'Ada', 'hush'); update person set name = 'Eve' where id = 7;
  update person set password = 'hush hush'; delete from person where id = 7; truncate person`

/** As pg_dump -t prints them, of a table that was tracked there under this number. */
const triggersOf = (table: string, id: number) =>
  ["insert", "update", "delete"]
    .map(
      (event) =>
        `create trigger "000_relay_${event}_${id}" after ${event} on public.${table} for each row execute function relay.capture_${event}_${id}();
         alter table public.${table} enable always trigger "000_relay_${event}_${id}";`,
    )
    .join("\n") +
  `create trigger "000_relay_truncate_${id}" after truncate on public.${table} for each statement execute function relay.capture_truncate_${id}();
   alter table public.${table} enable always trigger "000_relay_truncate_${id}"`

async function idOf(db: Database, name: string): Promise<number> {
  const rows = await db.query<{ id: number }>("select id from relay.tracking where name = $1", [
    `public.${name}`,
  ])
  return rows[0]?.id as number
}

async function restored(
  t: Test,
  db: Database,
  version: "15" | "18",
  ...options: string[]
): Promise<Database> {
  const directory = await mkdtemp(join(tmpdir(), "commitcast-dump-"))
  t.teardown(() => rm(directory, { recursive: true }))
  const file = join(directory, "dump")
  await dump(db.url, file)
  const target = await database(t, { version, empty: true })
  // Other tables first, so that no oid is what it was.
  await target.query("create table filler_1 (); create table filler_2 (); drop table filler_1, filler_2")
  await restore(target.url, file, ...options)
  return target
}

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    for (const what of ["another table's", "its own, of before"])
      t.test(`a table that is restored alone with the triggers of ${what} tells nothing`, async (t) => {
        const db = await database(t, { version })
        await db.query(
          `${PERSON}; create table other (id int primary key, note text); select relay.track('other')`,
        )
        const own = what.startsWith("its own")
        const id = await idOf(db, own ? "person" : "other")
        await db.query(`drop table person; create table person (password text, name text, id int primary key);
          ${triggersOf("person", id)}`)
        t.same(await logged(db, () => db.query(WRITES)), [])
        await db.query("set relay.bulk_load = summary")
        t.same(await logged(db, () => db.query(WRITES)), [])
        await db.query("reset relay.bulk_load")

        const problem = await problemOf(db, "person")
        t.match(problem, /the table was dropped, and there is another of its name, which is not captured: /)
        if (!own) {
          t.match(
            await problemOf(db, "other"),
            /stands on public.person, which is not part of it, and captures/,
          )
          await mend(db, "other")
          t.equal(await problemOf(db, "other"), null)
        }
        await db.query(remedyOf(problem))
        t.equal(await problemOf(db, "person"), null)
        await db.query(WRITES)
        for (const { oldText, newText, type } of await readLog(db)) {
          t.notMatch(`${oldText}${newText}`, /hush|password/)
          t.equal(type, "people_update", "with the options of before")
        }
        t.same(
          (await readLog(db))
            .filter(({ oldText, newText }) => oldText !== newText || oldText === null)
            .map(({ op }) => op),
          ["insert", "update", "delete", "truncate"],
        )
      })

    t.test(
      "a table that is renamed away and made anew is told as neither, and mended by the remedy",
      async (t) => {
        const db = await database(t, { version })
        await db.query(PERSON)
        const warm = await db.session()
        await warm.query("insert into person values (1, 'Ada', 'hush')")
        await db.query(
          "alter table person rename to people; create table person (password text, id int primary key, name text)",
        )
        t.same(await logged(db, () => warm.query(`${WRITES}; update people set name = 'Eve'`)), [])
        t.match(await problemOf(db, "person"), /renamed to public.people, and there is another of its name/)
        await db.query("drop table person")
        t.match(
          await problemOf(db, "person"),
          /the table was renamed: track it again, by select relay.track\('public.people'/,
        )
        await db.query(remedyOf(await problemOf(db, "person")))
        t.equal(await problemOf(db, "people"), null)
        await warm.query("update people set name = 'Joy'; update people set password = 'hush'")
        const last = (await readLog(db)).at(-1)
        t.match(last, { table: "public.people", newText: '{"id":1,"name":"Joy"}' })
      },
    )

    t.test("what a restore loaded with the triggers off is loaded again by the clients", async (t) => {
      const db = await database(t, { version })
      const superuser = await db.session(db.superuserUrl)
      await db.query("select relay.watch()")
      await superuser.query(
        "alter table vote disable trigger all; insert into vote (votes) values (1); alter table vote enable trigger all",
      )
      t.same(await logged(db, async () => t.same(await watch(db), ["vote"])), ["vote bulk_load attach"])
      t.same(await logged(db, () => db.query("insert into vote (votes) values (2)")), ["vote insert"])
      t.same(await watch(db), [])
    })

    t.test("a session that quotes all identifiers tracks, renews and mends like any other", async (t) => {
      const db = await database(t, { version })
      await db.query(`set quote_all_identifiers = on; ${PERSON};
        create table parts (id int primary key, m "char") partition by list (id); create table part_1 partition of parts default;
        select relay.track('parts')`)
      for (const name of ["person", "parts"]) {
        t.equal(await problemOf(db, name), null)
        await db.query("reset quote_all_identifiers")
        t.equal(await problemOf(db, name), null)
        t.equal(await mend(db, name), null)
        await db.query("set quote_all_identifiers = on")
      }
      t.same(await db.query("select relay.renew()::int as it"), [{ it: 0 }])
    })

    t.test("default types and channels are distinct, or refused with the remedy", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table dashboard (id int primary key); create table "Ä" (id int primary key); create table "Ö" (id int primary key);
        create schema two; create table two.item (id int primary key, committee_id int); create table item (id int primary key)`)
      await db.query(
        "select relay.track('dashboard'), relay.track('item', channels => '{\"committee\": \"id\"}'), relay.track('\"Ä\"')",
      )
      t.same(await db.query("select type from relay.tracked where name = 'public.dashboard'"), [
        { type: "public_dashboard_update" },
      ])
      for (const [table, remedy] of [
        ['"Ö"', "type =>"],
        ["two.item", "channels =>"],
      ] as const) {
        const error = await db.query(`select relay.track('${table}')`).catch((error) => error)
        t.match(error, { code: "22023" }, table)
        t.match(error.hint, remedy, "says how")
      }
      await db.query(
        `select relay.track('two.item', channels => '{"two_committee": "committee_id"}'), relay.track('"Ö"', type => 'o_update')`,
      )
      t.same(await db.query("select type from relay.tracked where name = 'two.item'"), [
        { type: "two_item_update" },
      ])
    })

    t.test(
      "a whole dump captures at once, whatever the oids, and fast once renewed",
      { skip: noDump(version) },
      async (t) => {
        const db = await database(t, { version })
        await db.query(`create type mood as enum ('calm', 'wild'); create domain feeling as mood;
        create table gap (gone int, secret text, id int primary key, m mood, f feeling); alter table gap drop gone;
        create table parts (id int primary key, secret text) partition by list (id); create table part_1 partition of parts default;
        create table line (id int primary key);
        select relay.track('gap', exclude => '{secret}'), relay.track('parts', exclude => '{secret}'), relay.track('line', level => 'statement')`)
        const target = await restored(t, db, version)
        const writes = () =>
          target.query(`insert into gap values ('hush', 1, 'calm', 'wild'); update gap set m = 'wild'; delete from gap; insert into parts values (1, 'hush');
          truncate part_1; insert into line values (1)`)
        t.same(await logged(target, writes), [
          "gap insert",
          "gap update",
          "gap delete",
          "parts insert",
          "parts truncate public.part_1",
          "line bulk_load insert",
        ])
        t.match(
          await problemOf(target, "gap"),
          /restored from a dump, and its capture is slow.*relay.renew\(\)/,
        )
        await target.query("truncate line; select relay.renew()")
        for (const name of ["gap", "parts", "line"]) t.equal(await problemOf(target, name), null, name)
        t.same((await logged(target, writes)).at(-1), "line insert")
        const log = await readLog(target)
        for (const { oldText, newText } of log) t.notMatch(`${oldText}${newText}`, /hush|secret/)
        t.match(
          log
            .filter(({ table, op }) => table === "public.gap" && op === "insert")
            .map(({ newText }) => newText),
          Array(2).fill('{"id":1,"m":"calm","f":"wild"}'),
        )
      },
    )

    t.test("a dump without data fails no writer", { skip: noDump(version) }, async (t) => {
      const db = await database(t, { version })
      await db.query(PERSON)
      const target = await restored(t, db, version, "--schema-only")
      t.same(await logged(target, () => target.query(WRITES)), [])
    })
  })
}
