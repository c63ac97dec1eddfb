/** Column types: what is sent of each, and that no code of a type's owner runs. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { lastEntry, missing, readLog, readOps, VERSIONS } from "../helpers/log.ts"

/** Gives a type a cast to json that leaves a trace and fails: whoever runs it is found out. */
const trap = (type: string) => `
  create function trap(v ${type}) returns json language plpgsql as
    $$ begin perform set_config('trap.ran', current_user, false); raise exception 'the owner''s cast to json ran as %', current_user; end $$;
  create cast (${type} as json) with function trap(${type});`

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("numbers beyond a double and dates are the text that PostgreSQL writes", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table x (id bigint primary key, n numeric, d date, ts timestamp, tz timestamptz, b bool, a int[], j jsonb);
        select relay.track('x');
        insert into x values (9223372036854775807, 12345678901234567890.1234567890, '2026-11-03', '2026-11-03 20:15',
          '2026-11-03 20:15:00.25+02', true, '{1,null}', '{"k": [1, 2.50]}')`)
      const { newText, meta } = await lastEntry(db)
      t.equal(
        newText,
        '{"id":9223372036854775807,"n":12345678901234567890.1234567890,"d":"2026-11-03","ts":"2026-11-03T20:15:00",' +
          '"tz":"2026-11-03T18:15:00.25+00:00","b":true,"a":[1,null],"j":{"k": [1, 2.50]}}',
      )
      t.same(meta.exact, ["id"])
    })

    t.test("NaN and Infinity are strings, so that the JSON stays valid", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table x (id numeric primary key, n numeric, f float8, g real, fs float8[]);
        select relay.track('x');
        insert into x values ('NaN', 'Infinity', '-Infinity', 'NaN', '{NaN,1,Infinity}')`)
      t.same((await lastEntry(db)).new, {
        id: "NaN",
        n: "Infinity",
        f: "-Infinity",
        g: "NaN",
        fs: ["NaN", 1, "Infinity"],
      })
    })

    t.test("strings with quotes, line ends and control characters are valid JSON", async (t) => {
      const db = await database(t, { version })
      const text = 'a "quoted"\\ line\r\n\tand \u0001 \u2028 𝄞'
      await db.query("insert into guarantee (note, voter_name) values ($1, '')", [text])
      t.match((await lastEntry(db)).new, { note: text, voter_name: "" })
    })

    t.test("stored generated columns are sent, virtual ones are left out", async (t) => {
      const db = await database(t, { version })
      const virtual = version === "18" ? ", v int generated always as (n * 3) virtual" : ""
      await db.query(`create table x (id int primary key, n int, s int generated always as (n * 2) stored${virtual});
        select relay.track('x'); insert into x values (1, 1); update x set n = 2; delete from x`)
      t.same(
        (await readLog(db)).map(({ old, new: after }) => [old, after]),
        [
          [null, { id: 1, n: 1, s: 2 }],
          [
            { id: 1, n: 1, s: 2 },
            { id: 1, n: 2, s: 4 },
          ],
          [{ id: 1, n: 2, s: 4 }, null],
        ],
      )
    })

    t.test(
      "types without an equality operator: an UPDATE is an event when they change, else none",
      async (t) => {
        const db = await database(t, { version })
        await db.query(`create table x (id int primary key, j json, p point, b xid8, x circle, n int); select relay.track('x');
        insert into x values (1, '{"a": 1}', '(1,2)', '7', '<(0,0),1>', 0)`)
        await db.query(`update x set j = '{"a": 1}', p = '(1,2)', x = x`)
        t.same(await readOps(db), ["insert"])
        await db.query(`update x set j = '{"a":  1}'; update x set p = '(1,3)'; update x set n = 1`)
        const log = await readLog(db)
        t.same(await readOps(db), ["insert", "update", "update", "update"])
        t.match(log.at(-1)?.newText, '{"id":1,"j":{"a":  1},"p":"(1,3)","b":"7"')
      },
    )

    t.test("an enum's label is sent, and its owner's cast to json never runs", async (t) => {
      const db = await database(t, { version })
      await db.query(`create type mood as enum ('sad', 'very "happy"', ''); ${trap("mood")}
        create domain feeling as mood; create domain feelings as mood[];
        create table x (id int primary key, m mood, d feeling, a mood[], da feelings);
        select relay.track('x')`)
      const writer = await db.session()
      await writer.query(`
        insert into x values (1, 'very "happy"', 'sad', '{sad,NULL,"very \\"happy\\""}', '{sad}'), (2, null, null, '{}', null);
        update x set m = '', d = null, a = null where id = 1; delete from x where id = 1; delete from x`)
      t.same(
        (await readLog(db)).map(({ old, new: after }) => after ?? old),
        [
          { id: 1, m: 'very "happy"', d: "sad", a: ["sad", null, 'very "happy"'], da: ["sad"] },
          { id: 2, m: null, d: null, a: [], da: null },
          { id: 1, m: "", d: null, a: null, da: ["sad"] },
          { id: 1, m: "", d: null, a: null, da: ["sad"] },
          { id: 2, m: null, d: null, a: [], da: null },
        ],
      )
      const ran = await writer.query("select current_setting('trap.ran', true) as ran")
      t.notOk(ran.rows[0].ran, "the cast did not run")
    })

    t.test("an array of domains over an enum can be written, and its labels are sent", async (t) => {
      const db = await database(t, { version })
      await db.query(`create type mood as enum ('sad', 'ok'); ${trap("mood")} create domain feeling as mood;
        create table x (id int primary key, a feeling[]); select relay.track('x')`)
      await db.query("insert into x values (1, '{sad,ok}')")
      t.same((await lastEntry(db)).new, { id: 1, a: ["sad", "ok"] })
    })

    t.test("an array of enums with two dimensions keeps its shape", async (t) => {
      const db = await database(t, { version })
      await db.query(`create type mood as enum ('sad', 'ok');
        create table x (id int primary key, a mood[], i int[]); select relay.track('x');
        insert into x values (1, '{{sad,ok},{ok,sad}}', '{{1,2},{3,4}}')`)
      const entry = await lastEntry(db)
      t.same(entry.new?.i, [
        [1, 2],
        [3, 4],
      ])
      t.same(entry.new?.a, [
        ["sad", "ok"],
        ["ok", "sad"],
      ])
    })

    t.test(
      "composite, range and multirange types are PostgreSQL's text, and their owners' casts never run",
      async (t) => {
        const db = await database(t, { version })
        await db.query(`create type mood as enum ('sad', 'ok'); ${trap("mood")}
        create type pair as (m mood, n int); ${trap("pair")}
        create type moods as range (subtype = mood, multirange_type_name = many_moods); ${trap("moods")} ${trap("many_moods")}
        create domain small as int check (value < 10); create domain duo as pair;
        create table x (id int primary key, c pair, w moods, m many_moods, cs pair[], s small, d duo);
        select relay.track('x');
        insert into x values (1, '(sad,1)', '[sad,ok]', '{[sad,sad]}', array['(ok,2)'::pair], 3, '(ok,)'),
                             (2, '(,)', null, null, null, null, null)`)
        await db.query("update x set s = 4; delete from x")
        const log = await readLog(db)
        t.match(log[0]?.new, {
          c: "(sad,1)",
          w: "[sad,ok]",
          m: "{[sad,sad]}",
          cs: ["(ok,2)"],
          s: 3,
          d: "(ok,)",
        })
        t.match(log[1]?.new, { c: "(,)", w: null, cs: null, s: null })
        t.equal(log.length, 6)
      },
    )

    t.test("a domain's own check does not run in the capture", async (t) => {
      const db = await database(t, { version })
      await db.query(`create function spy(v int) returns bool language plpgsql as
          $$ begin perform set_config('spy.ran', current_setting('spy.ran', true) || current_user || ' ', false); return true; end $$;
        create domain watched as int check (spy(value));
        create table x (id int primary key, w watched, ws watched[]); select relay.track('x')`)
      const writer = await db.session(db.url)
      await writer.query("set spy.ran = ''; insert into x values (1, 2, '{3}'); update x set w = 4")
      const { rows } = await writer.query(
        "select current_setting('spy.ran') as ran, count(*)::int from relay.change",
      )
      t.match(rows[0], { ran: /^(app )+$/, count: 2 })
      const calls = rows[0].ran.length
      await db.query("select relay.untrack('x')")
      await writer.query(
        "set spy.ran = ''; insert into x values (2, 2, '{3}'); update x set w = 4 where id = 2",
      )
      const after = await writer.query("select current_setting('spy.ran') as ran")
      t.equal(after.rows[0].ran.length, calls, "as often without capture")
    })

    t.test("names that need quotes are captured", async (t) => {
      const db = await database(t, { version })
      await db.query(`create schema "My ""Schema";
        create table "My ""Schema"."select % $1" ("Group ""x"" %s" int primary key, "a'b\\c" text);
        select relay.track('"My ""Schema"."select % $1"', 'odd_update');
        insert into "My ""Schema"."select % $1" values (1, 'é'); update "My ""Schema"."select % $1" set "a'b\\c" = 'b';
        delete from "My ""Schema"."select % $1"`)
      t.match(await lastEntry(db), {
        table: '"My ""Schema"."select % $1"',
        old: { 'Group "x" %s': 1, "a'b\\c": "b" },
      })
    })

    t.test("columns may be called as the capture's own names are", async (t) => {
      const db = await database(t, { version })
      const names = [
        "new",
        "old",
        "d",
        "n",
        "o",
        "e",
        "v",
        "tg_op",
        "v_rows",
        "v_bulk",
        "new_rows",
        "table",
        "op",
        "c",
        "r",
        "t",
        "v_settings",
        "xmax_",
      ]
      const row = Object.fromEntries(names.map((name, n) => [name, n]))
      for (const [n, name] of names.entries()) {
        const level = n % 2 === 0 ? "row" : "statement"
        await db.query(
          `create table "x ${name}" (id int primary key, "${name}" int); select relay.track('"x ${name}"', 'x_update', level => '${level}')`,
        )
        await t.resolves(
          db.query(
            `insert into "x ${name}" values (1, 1); update "x ${name}" set "${name}" = 2; delete from "x ${name}"`,
          ),
          `a column called ${name}`,
        )
      }
      t.equal((await readLog(db)).length, 3 * names.length)
      await db.query(
        `create table x (id int primary key, ${names.map((name) => `"${name}" int`).join()}); select relay.track('x')`,
      )
      await db.query(`insert into x values (-1, ${Object.values(row).join()})`)
      t.same((await lastEntry(db)).new, { id: -1, ...row })
    })

    t.test("a column's name cannot break out of the code that is made", async (t) => {
      const db = await database(t, { version })
      for (const [n, name] of [
        "$capture$",
        "$code$",
        "'",
        "$capture$; create table broken_out (); --",
      ].entries()) {
        await db.query(`create table x${n} (id int primary key, "${name}" int)`)
        await t.resolves(db.query(`select relay.track('x${n}')`), name)
        await t.resolves(db.query(`insert into x${n} values (1, 2); update x${n} set id = 2`), name)
        t.match(await lastEntry(db), { new: { id: 2, [name]: 2 } })
      }
      t.same(await db.query("select to_regclass('broken_out') as it"), [{ it: null }])
    })

    t.test("a table of 400 columns is captured", async (t) => {
      const db = await database(t, { version })
      const columns = Array.from({ length: 400 }, (_, n) => `c${n} int default ${n}`).join(", ")
      await db.query(`create table wide (id int primary key, ${columns}); select relay.track('wide');
        insert into wide (id) values (1); update wide set c399 = -1`)
      t.match(await lastEntry(db), { op: "update", new: { c0: 0, c399: -1 } })
    })

    t.test("a table of nothing but its key is captured", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table only_key (id int primary key); select relay.track('only_key');
        insert into only_key values (1); update only_key set id = 2; delete from only_key`)
      t.same(await readOps(db), ["insert", "update", "delete"])
    })
  })
}
