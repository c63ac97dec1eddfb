/** Which columns are sent, also after the table was altered. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { lastEntry, missing, readLog, readOps, refusal, VERSIONS, writtenText } from "../helpers/log.ts"

/** A table of which `secret` is excluded. */
const ITEM = `create table item (id int primary key, name text, secret text, n int);
  select relay.track('item', exclude => array['secret']); insert into item values (1, 'Ada', 'hush', 0)`

const problemOf = async (db: Database, name: string) => {
  const [row] = await db.query<{ problem: string | null; not_captured: string[] }>(
    "select problem, not_captured from relay.tracked where name = $1",
    [name],
  )
  return row
}

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("excluded columns are neither sent nor an event", async (t) => {
      const db = await database(t, { version })
      await db.query(
        `${ITEM}; update item set secret = 'hush hush'; update item set name = 'Bo', secret = 'x'; delete from item`,
      )
      const log = await readLog(db)
      t.same(
        log.map((entry) => entry.op),
        ["insert", "update", "delete"],
      )
      t.notMatch(await writtenText(db), /secret|hush/)
    })

    t.test("with columns given, only they are sent and only they are an event", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table item (id int primary key, name text, secret text);
        select relay.track('item', columns => array['name', 'id']); insert into item values (1, 'Ada', 'hush');
        update item set secret = 'x'; update item set name = 'Bo'`)
      t.same(
        (await readLog(db)).map(({ newText }) => newText),
        ['{"id":1,"name":"Ada"}', '{"id":1,"name":"Bo"}'],
      )
    })

    t.test("a renamed column keeps its name also where all are sent and the code is made anew", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table item (id int primary key, name text); select relay.track('item');
        alter table item rename name to title; alter table item rename id to number; select relay.renew();
        insert into item values (1, 'Ada')`)
      t.same((await lastEntry(db)).new, { id: 1, name: "Ada" })
      await db.query(
        "alter table item rename title to id; select relay.renew(); insert into item values (2, 'Bo')",
      )
      t.same((await lastEntry(db)).new, { id: 2, name: "Bo" })
    })

    for (const limit of ["", ", max_bytes => 2000"])
      t.test(`statement level reads columns by any name, beside dropped ones${limit}`, async (t) => {
        const db = await database(t, { version })
        await db.query(`create table item (gone int, r text, id int primary key, "A.b" int, p text, k text, c text, whole text, new_rows text, v_rows text, "TG_OP" text);
          alter table item drop column gone;
          select relay.track('item', level => 'statement', channels => '{"team": "A.b"}'${limit});
          insert into item (id, r, "A.b", whole) values (1, 'Ada', 7, 'all'), (2, null, 8, null);
          insert into item (id, r, "A.b") values (3, repeat('x', 70000), 9)`)
        const entries = await readLog(db)
        t.match(
          entries.map(({ new: row }) => row),
          [
            { id: 1, r: "Ada", "A.b": 7, whole: "all", new_rows: null },
            { id: 2, r: null, "A.b": 8, whole: null },
            { id: 3, "A.b": 9 },
          ],
        )
        t.same(
          entries.map(({ oversize }) => oversize),
          [false, false, true],
        )
      })

    t.test("a snapshot from before track does not show a writer what was altered since", async (t) => {
      const db = await database(t, { version })
      const writer = await db.session()
      await db.query("create table item (id int primary key, name text, n int)")
      await writer.query("begin isolation level repeatable read; select 1")
      await db.query("select relay.track('item'); alter table item drop n")
      await writer.query("insert into item values (1, 'Ada'); commit")
      t.same(await readOps(db), ["bulk_load"])

      await db.query("select relay.track('item'); alter table item add n int")
      await writer.query("begin isolation level repeatable read; select 1")
      await db.query("select relay.track('item'); alter table item drop n")
      await writer.query("insert into item values (2, 'Bo'); commit")
      t.same((await lastEntry(db)).new, { id: 2, name: "Bo" })

      await db.query("select relay.untrack('item')")
      await writer.query("begin isolation level repeatable read; select 1")
      await db.query("select relay.track('item'); alter table item add secret text default 'hush'")
      await writer.query("insert into item values (3, 'Cy'); commit")
      t.notMatch(await writtenText(db), /hush/)
    })

    t.test("a renamed column is sent under the name it was tracked with, and reported", async (t) => {
      const db = await database(t, { version })
      const warm = await db.session()
      await db.query(ITEM)
      await warm.query("update item set n = 1")
      t.match(await problemOf(db, "public.item"), { problem: null, not_captured: [] })
      await db.query("alter table item rename name to title")
      for (const session of [warm, await db.session()])
        await session.query("update item set title = title || '!'")
      t.match(await problemOf(db, "public.item"), { problem: /renamed, retyped or dropped: track it again/ })
      t.same((await lastEntry(db)).new, { id: 1, name: "Ada!!", n: 1 })
      await db.query("select relay.track('item', exclude => array['secret']); update item set n = 2")
      t.same((await lastEntry(db)).new, { id: 1, title: "Ada!!", n: 2 })
      t.match(await problemOf(db, "public.item"), { problem: null })
    })

    for (const level of ["statement", "row"] as const) {
      t.test(`when names are swapped the excluded column never leaks, inserts by ${level}`, async (t) => {
        const db = await database(t, { version })
        const warm = await db.session()
        await db.query(ITEM.replace("exclude", `level => '${level}', exclude`))
        await warm.query(
          "insert into item values (2, 'Bo', 'hush', 0); update item set n = 1; delete from item where id = 2",
        )
        const fixed = await db.session()
        await fixed.query(
          "begin isolation level repeatable read; select from vote; insert into vote default values",
        )
        const fixedWarm = await db.session()
        await fixedWarm.query("begin isolation level serializable; select from item; commit")
        await fixedWarm.query("insert into item values (3, 'Cy', 'hush', 0); delete from item where id = 3")
        await fixedWarm.query("begin isolation level serializable; select from vote")
        await db.query(
          `alter table item rename secret to x; alter table item rename name to secret; alter table item rename x to name`,
        )
        const before = (await readLog(db)).length
        let id = 10
        for (const session of [warm, fixed, fixedWarm, await db.session()]) {
          id++
          await session.query(`insert into item (id, secret, name, n) values (${id}, 'open', 'hush', 0);
            update item set n = n + 1 where id = ${id}; delete from item where id = ${id}`)
          await session.query("commit")
        }
        const log = (await readLog(db)).filter(({ table }) => table === "public.item").slice(-12)
        t.equal(log.length, 12, `${before} before`)
        for (const { op, meta, old, new: after } of log) {
          // Nothing puts the rows of a whole statement together anew.
          if (level === "statement" && op === "bulk_load") t.match(meta, { op: "insert", rows: 1 })
          else t.equal((after ?? old)?.name, "open")
        }
        t.notMatch(await writtenText(db), /hush/)
      })
    }

    t.test("a renaming in the writer's own transaction does not leak either", async (t) => {
      const db = await database(t, { version })
      await db.query(ITEM)
      await db.query(`begin isolation level repeatable read; update item set n = 1;
        alter table item rename secret to x; alter table item rename name to secret; alter table item rename x to name;
        update item set n = 2; insert into item (id, secret, name) values (2, 'open', 'hush'); commit`)
      t.equal((await readLog(db)).length, 4)
      t.notMatch(await writtenText(db), /hush/)
    })

    t.test("a new column is named as not captured, and sent once the table is tracked again", async (t) => {
      const db = await database(t, { version })
      await db.query(`${ITEM}; alter table item add extra int default 7`)
      await db.query(
        "insert into item values (2, 'Bo', 's', 1, 8); update item set extra = 9; update item set n = 5",
      )
      t.match(await problemOf(db, "public.item"), { problem: null, not_captured: ["extra"] })
      t.same(
        (await readLog(db)).map((entry) => entry.op),
        ["insert", "insert", "update", "update"],
      )
      t.notOk("extra" in ((await lastEntry(db)).new ?? {}))
      await db.query(
        "select relay.track('item', exclude => array['secret']); update item set extra = 10 where id = 1",
      )
      t.match((await lastEntry(db)).new, { id: 1, extra: 10 })
      t.match(await problemOf(db, "public.item"), { not_captured: [] })
    })

    t.test("a dropped column is left out, in old sessions too, and reported", async (t) => {
      const db = await database(t, { version })
      const warm = await db.session()
      await db.query(ITEM)
      await warm.query("update item set n = 1")
      await db.query("alter table item drop name")
      await warm.query(
        "update item set n = 2; insert into item values (2, 'hush', 3); delete from item where id = 1",
      )
      const log = (await readLog(db)).slice(-3)
      t.same(
        log.map(({ old, new: after }) => after ?? old),
        [
          { id: 1, n: 2 },
          { id: 2, n: 3 },
          { id: 1, n: 2 },
        ],
      )
      t.match(await problemOf(db, "public.item"), { problem: /dropped: track it again/ })
      await db.query(
        "alter table item add name text; insert into item (id, secret, name) values (3, 'hush', 'again')",
      )
      t.same((await lastEntry(db)).new, { id: 3, n: null }, "a new column of the old name is a new column")
    })

    t.test(
      "a retyped column's new values are sent, in old sessions and under old snapshots too",
      async (t) => {
        const db = await database(t, { version })
        const warm = await db.session()
        await db.query(ITEM)
        await warm.query("update item set n = 1")
        const fixed = await db.session()
        await fixed.query("begin isolation level repeatable read; select from vote")
        await db.query("alter table item alter n type text using 'n' || n")
        await warm.query("update item set n = 'two'")
        t.same((await lastEntry(db)).new, { id: 1, name: "Ada", n: "two" })
        await fixed.query("insert into item values (2, 'Bo', 'hush', 'three'); commit")
        t.same((await lastEntry(db)).new, { id: 2, name: "Bo", n: "three" })
        t.match(await problemOf(db, "public.item"), { problem: /retyped/ })
      },
    )

    t.test("a row is sent as ever under a snapshot older than a TRUNCATE of its table", async (t) => {
      const db = await database(t, { version })
      await db.query(`create type mood as enum ('sad', 'ok');
        create table thing (id bigint primary key, n numeric, at timestamptz, flag bool, list int[], doc jsonb, name text, mood mood);
        select relay.track('thing')`)
      const insert = `insert into thing values (1, 1.50, '2026-11-03 20:00:00+02', true, '{1,2}', '{"a": 1}', null, 'ok')`
      await db.query(insert)
      const { newText } = await lastEntry(db)
      const fixed = await db.session()
      await fixed.query("begin isolation level repeatable read; select from vote")
      await db.query("truncate thing")
      await fixed.query(`${insert}; commit`)
      t.equal((await lastEntry(db)).newText, newText)
    })

    t.test("a column retyped to an enum with its owner's cast to json never runs that cast", async (t) => {
      const db = await database(t, { version })
      const warm = await db.session()
      await db.query(`${ITEM}; create type mood as enum ('sad', 'ok');
        create function trap(mood) returns json language plpgsql as $$ begin raise exception 'ran as %', current_user; end $$;
        create cast (mood as json) with function trap(mood); update item set name = 'ok'`)
      await warm.query("update item set n = 1")
      const fixed = await db.session()
      await fixed.query("begin isolation level repeatable read; select from vote")
      await db.query("alter table item alter name type mood using name::mood")
      for (const [id, session] of [warm, fixed, await db.session()].entries()) {
        await session.query(`insert into item (id, name) values (1${id}, 'sad')`)
        await session.query(`update item set n = 8 where id = 1${id}; commit`)
        t.match((await lastEntry(db)).new, { id: 10 + id, name: "sad", n: 8 })
      }
    })

    for (const level of ["row", "statement"]) {
      t.test(`of a table captured whole, inserts by ${level}, a later column is not sent`, async (t) => {
        const db = await database(t, { version })
        const warm = await db.session()
        await db.query(`create table note (id int primary key, text text);
          select relay.track('note', level => '${level}'); insert into note values (1, 'a')`)
        await warm.query("insert into note values (2, 'b'); update note set text = 'c' where id = 2")
        const fixed = await db.session()
        await fixed.query("begin isolation level repeatable read; select from vote")
        await db.query("alter table note add secret text default 'hush'")
        for (const [n, session] of [warm, fixed, await db.session()].entries()) {
          await session.query(`insert into note values (1${n}, 'd'); update note set text = 'e', secret = 'hush!' where id = 1${n};
            update note set secret = 'hush?' where id = 1${n}; delete from note where id = 1${n}; commit`)
          const log = (await readLog(db)).slice(-3)
          t.same(
            log.map(({ op, old, new: after }) => [op, old, after]),
            [
              // Nothing puts the rows of a whole statement together anew.
              level === "row" ? ["insert", null, { id: 10 + n, text: "d" }] : ["bulk_load", null, null],
              ["update", { id: 10 + n, text: "d" }, { id: 10 + n, text: "e" }],
              ["delete", { id: 10 + n, text: "e" }, null],
            ],
          )
        }
        t.notMatch(await writtenText(db), /hush/)
        await db.query("select relay.renew()")
        for (const [n, session] of [warm, fixed, await db.session()].entries()) {
          await session.query(`insert into note values (2${n}, 'd', 'hush')`)
          t.same((await lastEntry(db)).new, { id: 20 + n, text: "d" }, "renewed")
        }
        await db.query("select relay.track('note'); update note set text = 'f' where id = 2")
        t.same((await lastEntry(db)).new, { id: 2, text: "f", secret: "hush" })
      })

      t.test(
        `of a table captured whole, inserts by ${level}, a column retyped to an enum never runs its owner's cast`,
        async (t) => {
          const db = await database(t, { version })
          const warm = await db.session()
          await db.query(`create table note (id int primary key, text text);
            select relay.track('note', level => '${level}'); create type mood as enum ('sad', 'ok');
            create function trap(mood) returns json language plpgsql as $$ begin raise exception 'ran as %', current_user; end $$;
            create cast (mood as json) with function trap(mood)`)
          await warm.query("insert into note values (1, 'ok'); update note set id = 2")
          const fixed = await db.session()
          await fixed.query("begin isolation level repeatable read; select from vote")
          await db.query("alter table note alter text type mood using text::mood")
          const sessions = [warm, fixed, await db.session()]
          for (const again of [false, true]) {
            if (again) await db.query(`select relay.track('note', level => '${level}')`)
            for (const [n, session] of sessions.entries()) {
              await session.query(`insert into note values (1${n}, 'sad')`)
              await session.query(`update note set text = 'ok' where id = 1${n}; commit`)
              t.same((await lastEntry(db)).new, { id: 10 + n, text: "ok" })
              await session.query(`delete from note where id = 1${n}`)
            }
          }
        },
      )
    }

    t.test("a table tracked after a fixed snapshot was taken is written under it", async (t) => {
      const db = await database(t, { version })
      await db.query("create table item (id int primary key, name text, n int)")
      const fixed = await db.session()
      await fixed.query("begin isolation level repeatable read; select from vote")
      await db.query("select relay.track('item')")
      await fixed.query("insert into item values (1, 'Ada', 0); update item set n = 1; commit")
      t.same(
        (await readLog(db)).map(({ op, new: after }) => [op, after?.n]),
        [
          ["insert", 0],
          ["update", 1],
        ],
      )
    })

    t.test("renaming a key or channel column keeps key and channels under the tracked names", async (t) => {
      const db = await database(t, { version })
      await db.query(`insert into vote (committee_id) values (7); alter table vote rename committee_id to unit;
        alter table vote rename id to nr; update vote set votes = 1`)
      t.match(await lastEntry(db), {
        new: { id: 1, committee_id: 7 },
        meta: { key: ["id"], scope: { committee: "committee_id" } },
      })
    })

    t.test("a renamed table keeps its name in the log until it is tracked again", async (t) => {
      const db = await database(t, { version })
      await db.query(`${ITEM}; alter table item rename to thing; update thing set n = 1`)
      t.match(await lastEntry(db), { table: "public.item" })
      t.match(await problemOf(db, "public.item"), {
        problem: /the table was renamed: track it again/,
      })
      await db.query("select relay.track('thing', exclude => array['secret']); update thing set n = 2")
      t.match(await lastEntry(db), { table: "public.thing", type: "thing_update" })
      t.equal(await problemOf(db, "public.item"), undefined)
    })

    t.test(
      "a renamed table whose name another table took does not leak when its columns swap names",
      async (t) => {
        const db = await database(t, { version })
        await db.query(`${ITEM}; alter table item rename to thing; create table item (like thing);
        alter table thing rename secret to x; alter table thing rename name to secret; alter table thing rename x to name`)
        await db.query(
          "insert into thing (id, secret, name) values (2, 'open', 'hush'); update thing set n = 1",
        )
        await db.query("select relay.track('thing', exclude => array['secret'])")
        t.notMatch(await writtenText(db), /hush/)
      },
    )

    t.test("key and columns must exist and the key must be captured", async (t) => {
      const db = await database(t, { version })
      await db.query("create table item (id int primary key, name text, n int)")
      for (const [options, message] of [
        ["columns => array['id', 'nope']", /nope/],
        ["exclude => array['nope']", /nope/],
        ["key => array['nope']", /nope/],
        ["exclude => array['id']", /key column id of public.item must be among the captured columns/],
        ["columns => array['name']", /key column id/],
        ["columns => array['xmin', 'id']", /xmin/],
      ] as const)
        t.match(await refusal(db.query(`select relay.track('item', ${options})`)), {
          code: /^22|^42/,
          message,
        })
      t.same(await readOps(db), [])
    })
  })
}
