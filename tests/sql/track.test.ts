/** relay.track, relay.untrack and relay.tracked. */

import t from "tap"
import { install } from "../../cli/schema/install.ts"
import { track } from "../../cli/schema/track.ts"
import { type Database, database } from "../helpers/database.ts"
import {
  backendOf,
  lastEntry,
  missing,
  readLog,
  readOps,
  refusal,
  VERSIONS,
  waitsForLock,
} from "../helpers/log.ts"

const triggersOf = (db: Database, table: string) =>
  db.query<{ oid: number; tgname: string }>(
    "select oid, tgname from pg_trigger where tgrelid = $1::regclass and not tgisinternal order by tgname",
    [table],
  )

/** The name of the trigger of ours on vote that fires for this event. */
const triggerOf = async (db: Database, event: string) =>
  (await triggersOf(db, "vote")).find(({ tgname }) => tgname.startsWith(`000_relay_${event}`))?.tgname ?? ""

const trackedRow = async (db: Database, name: string) =>
  (await db.query("select * from relay.tracked where name = $1", [name]))[0]

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test(
      "whoever tracks a table with row level security is told that the relay does not apply it",
      async (t) => {
        const db = await database(t, { version, empty: true })
        await db.query("create table vote (id int primary key); alter table vote enable row level security")
        const warning = /^public.vote has row level security, which the relay does not apply.*narrow them/
        t.match(await install(db.url), { tracked: ["vote"], warnings: [warning] })
        t.match(await trackedRow(db, "public.vote"), { row_security: true, problem: null })
        t.match(await track(db.url, "vote", {}), [warning])
        await db.query("alter table vote disable row level security")
        t.same(await track(db.url, "vote", {}), [])
        t.match(await trackedRow(db, "public.vote"), { row_security: false })
      },
    )

    t.test("by default type, channels and key come from the table", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table public."Order" (b int, a int, user_id int, election_id int, note text, primary key (a, b));
        select relay.track('"Order"', 'order_update')`)
      t.match(await trackedRow(db, 'public."Order"'), {
        type: "order_update",
        channels: { user: "user_id", election: "election_id" },
        columns: ["b", "a", "user_id", "election_id", "note"],
        excluded: [],
        key: ["a", "b"],
        level: "row",
        problem: null,
        not_captured: [],
      })
      t.match(await trackedRow(db, "public.guarantee"), {
        type: "guarantee_update",
        channels: { committee: "committee_id", election: "election_id", user: "user_id" },
      })
      t.match(await trackedRow(db, "public.vote"), { type: "voting_update" })
    })

    t.test("type, channels and key can be given", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table x (a int, b bigint, region text);
        select relay.track('x', 'sale_update', '{"region": "region"}', key => array['b', 'a']); insert into x values (1, 2, 'north')`)
      t.match(await lastEntry(db), {
        type: "sale_update",
        meta: { key: ["b", "a"], exact: ["b"], scope: { region: "region" } },
      })
    })

    t.test("options that cannot be are refused, and nothing is tracked", async (t) => {
      const db = await database(t, { version })
      await db.query("create table x (id int primary key, committee_id int)")
      for (const [options, message] of [
        ["type => 'Upper'", /type Upper cannot be used/],
        ["type => 'checkpoint'", /type checkpoint cannot be used/],
        ["type => 'x''y'", /cannot be used/],
        ["type => ''", /cannot be used/],
        [`channels => '{"committee": "nope"}'`, /channels of public.x: 'nope' must name a captured column/],
        [
          `channels => '{"Committee": "id"}'`,
          /'id' must name a captured column, under a prefix of lower-case/,
        ],
        [`channels => '{"dashboard": "id"}'`, /must name a captured column/],
        [`channels => '{"committee": null}'`, /NULL must name a captured column/],
        [`channels => '["id"]'`, /channels must be an object/],
        [`channels => '7'`, /channels must be an object/],
        [
          `exclude => array['committee_id'], channels => '{"committee": "committee_id"}'`,
          /must name a captured column/,
        ],
      ] as const)
        t.match(
          await refusal(db.query(`select relay.track('x', ${options})`)),
          { code: "22023", message },
          options,
        )
      for (const option of ["key", "columns", "exclude"])
        t.match(
          await refusal(db.query(`select relay.track('x', ${option} => array['id', null])`)),
          { code: "42703", message: /public.x has no column NULL/ },
          option,
        )
      t.same(await trackedRow(db, "public.x"), undefined)
      t.same(await triggersOf(db, "x"), [])
      await db.query("select relay.track('x', exclude => null, level => null)")
      t.match(await trackedRow(db, "public.x"), { columns: ["id", "committee_id"], level: "row" })
    })

    t.test("what cannot be tracked is refused with the reason", async (t) => {
      const db = await database(t, { version })
      await db.query(`create view v as select 1 as id; create materialized view mv as select 1 as id; create temp table temporary (id int primary key);
        create table keyless (id int); create table parts (id int primary key) partition by range (id);
        create table part partition of parts for values from (0) to (10); create sequence s; create unlogged table quick (id int primary key);
        create index i on keyless (id); create type pair as (a int)`)
      const only = /cannot be tracked: only ordinary and partitioned tables can/
      for (const [table, message, hint] of [
        ["v", only],
        ["mv", only],
        ["temporary", only],
        ["s", only],
        ["i", only],
        ["pair", only],
        ["relay.change", only],
        ["relay.change_0", /it belongs to the relay itself/],
        ["relay.tracking", /it belongs to the relay itself/],
        ["keyless", /public.keyless has no primary key/, /Name the columns that identify a row/],
        ["part", /public.part is a partition/, /select relay.track\('parts'\)|relay.track\('public.parts'\)/],
        ["pg_catalog.pg_class", /permission denied/],
      ] as const) {
        const found = await refusal(db.query(`select relay.track('${table}')`))
        t.match(found?.message, message, table)
        if (hint !== undefined) t.match(found?.hint, hint)
      }
      await db.query("select relay.track('quick'), relay.track('keyless', key => array['id'])")
      await db.query("insert into quick values (1); insert into keyless values (1)")
      t.same(await readOps(db), ["insert", "insert"])
    })

    t.test("tracking again changes nothing and waits for no writer", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote default values")
      const before = await triggersOf(db, "vote")
      const writer = await db.session()
      await writer.query("begin; insert into vote (votes) values (5)")
      await db.query("set lock_timeout = '50ms'")
      await t.resolves(db.query("select relay.track('vote', 'voting_update')"), "same options")
      await t.resolves(
        db.query("select relay.track('vote', 'ballot_update', exclude => array['entered_by'])"),
        "others",
      )
      t.same(await triggersOf(db, "vote"), before, "the same triggers")
      await writer.query("update vote set votes = 6, entered_by = 'Ada'; commit")
      const log = await readLog(db)
      t.same(
        log.map((entry) => entry.op),
        ["insert", "insert", "update", "update"],
      )
      t.equal(log.at(-1)?.type, "ballot_update")
      t.notOk("entered_by" in (log.at(-1)?.new ?? {}))
    })

    t.test("a trigger that was dropped or disabled is reported and made again", async (t) => {
      const db = await database(t, { version })
      const names = new Map<string, string>()
      for (const event of ["update", "delete"]) names.set(event, await triggerOf(db, event))
      const trigger = (event: string) => names.get(event)
      for (const [sql, name] of [
        [`drop trigger "${trigger("update")}" on vote`, "dropped"],
        [`alter table vote disable trigger "${trigger("delete")}"`, "disabled"],
        ["alter table vote disable trigger all", "all disabled"],
      ] as const) {
        await db.session(db.superuserUrl).then((session) => session.query(sql))
        t.match(
          await trackedRow(db, "public.vote"),
          {
            problem:
              /its trigger "000_relay_\w+" is (missing|disabled) on public.vote: as the owner of the tables, select relay.mend/,
          },
          name,
        )
        await db.query("select relay.track('vote', 'voting_update')")
        t.match(await trackedRow(db, "public.vote"), { problem: null }, name)
        const before = (await readLog(db)).length
        await db.query("insert into vote (id) values (1); update vote set votes = 3; delete from vote")
        t.same((await readOps(db)).slice(before), ["insert", "update", "delete"], name)
      }
    })

    t.test("a trigger that fires on replicas only is reported and made again", async (t) => {
      const db = await database(t, { version })
      await db.query(`alter table vote enable replica trigger "${await triggerOf(db, "insert")}"`)
      t.match(await trackedRow(db, "public.vote"), {
        problem:
          /its trigger "000_relay_\w+" is disabled on public.vote: as the owner of the tables, select relay.mend/,
      })
      await db.query("select relay.track('vote', 'voting_update'); insert into vote default values")
      t.same(await readOps(db), ["bulk_load", "insert"], "what passed it by is loaded")
    })

    t.test("two sessions that track one table at once both succeed, and it is tracked once", async (t) => {
      const db = await database(t, { version })
      await db.query("create table x (id int primary key)")
      const [first, second] = [await db.session(), await db.session()]
      await first.query("begin; select relay.track('x')")
      const pid = await backendOf(second)
      const waiting = second.query("select relay.track('x', 'other_update')")
      await waitsForLock(db, pid)
      await first.query("commit")
      await waiting
      t.match(await db.query("select type from relay.tracked where name = 'public.x'"), [
        { type: "other_update" },
      ])
      t.equal((await triggersOf(db, "x")).length, 4)
      await db.query("insert into x values (1)")
      t.same(await readOps(db), ["insert"])
    })

    t.test("untrack leaves no trigger and no function, and says whether there was something", async (t) => {
      const db = await database(t, { version })
      const functions = () =>
        db.query(
          "select proname from pg_proc where proname like 'capture\\_%\\_%' and prorettype = 'trigger'::regtype order by 1",
        )
      await db.query("create table x (id int primary key)")
      const before = await functions()
      await db.query("select relay.track('x')")
      t.equal((await functions()).length, before.length + 5)
      t.same(await db.query("select relay.untrack('x') as was"), [{ was: true }])
      t.same(await functions(), before)
      t.same(await triggersOf(db, "x"), [])
      t.same(await db.query("select relay.untrack('x') as was"), [{ was: false }])
      await db.query("insert into x values (1); update x set id = 2; truncate x")
      t.same(await readOps(db), [])
    })

    t.test("a dropped table is reported, and its code goes with the next track", async (t) => {
      const db = await database(t, { version })
      await db.query(
        "create table x (id int primary key); create table y (id int primary key); select relay.track('x'); drop table x",
      )
      const [row] = await db.query<{ problem: string }>(
        "select problem from relay.tracked where problem is not null",
      )
      t.match(row?.problem, /the table was dropped: select relay.untrack\(\d+\)/)
      await db.query(`${row?.problem.split(": ")[1]}`)
      t.same(await db.query("select from relay.tracked where problem is not null"), [])
      await db.query(
        "select relay.track('y'); drop table y; create table y (id int primary key); select relay.track('y'); insert into y values (1)",
      )
      t.same(await readOps(db), ["insert"])
      t.equal((await db.query("select from pg_proc where proname ~ '^capture_insert_'")).length, 4)
    })

    t.test(
      "a table that comes back under the name of a dropped or renamed one is another table",
      async (t) => {
        const db = await database(t, { version })
        await db.query(
          "create table x (id int primary key, n int); select relay.track('x'); insert into x values (1, 1)",
        )
        const warm = await db.session()
        await warm.query("update x set n = 2")
        await db.query("alter table x rename to old_x; create table x (n text primary key, id text)")
        await db.query("insert into old_x values (2, 2); update old_x set n = 3")
        await warm.query("delete from old_x; insert into x values ('a', 'b')")
        t.equal(
          (await readLog(db)).length,
          2,
          "under one name there is never one row of this and one of that",
        )
        t.match(await trackedRow(db, "public.x"), {
          problem:
            /renamed to public.old_x, and there is another of its name: neither is captured until both are tracked again/,
        })
        await db.query("select relay.track('old_x'), relay.track('x')")
        await warm.query("insert into old_x values (3, 3); insert into x values ('c', 'd')")
        t.same(
          (await readLog(db)).slice(2).map(({ table, op, new: after }) => [table, op, after]),
          [
            ["public.old_x", "insert", { id: 3, n: 3 }],
            ["public.x", "insert", { n: "c", id: "d" }],
          ],
        )
        t.match(await db.query("select from relay.tracked where problem is not null"), [])
      },
    )

    t.test("a new version of the table by ALTER is tracked again without a gap for writers", async (t) => {
      const db = await database(t, { version })
      const writer = await db.session()
      await writer.query("insert into vote (votes) values (1)")
      await db.query(
        "begin; alter table vote add extra int default 3; select relay.track('vote', 'voting_update'); commit",
      )
      await writer.query("update vote set extra = 4")
      t.match(await lastEntry(db), { old: { extra: 3 }, new: { extra: 4 } })
    })
  })
}
