/** The text of a row does not depend on what the writer's session has set. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { lastEntry, missing, readLog, VERSIONS } from "../helpers/log.ts"

const SETTINGS = [
  "set timezone = 'Pacific/Chatham'",
  "set datestyle = 'German, DMY'",
  "set intervalstyle = 'sql_standard'",
  "set extra_float_digits = -5",
  "set bytea_output = 'escape'",
  "set lc_monetary = 'C'; set xmlbinary = 'hex'; set search_path = pg_temp, pg_catalog",
  "set array_nulls = off; set standard_conforming_strings = off; set quote_all_identifiers = on",
]

/** Columns by the settings that their text hangs on; each also alone in a table, so that one's clause cannot cover another's. */
const COLUMNS: Record<string, string> = {
  timestamptz: "'2026-11-03 20:15:00.25+01'",
  timestamp: "'2026-02-03 20:15'",
  "timestamptz[]": "array['2026-11-03 20:15+01'::timestamptz]",
  timetz: "'20:15+01'",
  date: "date '2026-02-03'",
  interval: "interval '1 year -2 days 3 hours'",
  "interval[]": "array[interval '1 mon']",
  float8: "'0.1'::float8 + '0.2'::float8",
  float4: "'0.1'::float4 * 3",
  "float8[]": "array[0.1::float8 + 0.2::float8]",
  bytea: "decode('00ff', 'hex')",
  tstzrange: "tstzrange('2026-11-03 20:15+01', '2026-11-04 20:15+01')",
  daterange: "daterange('2026-02-03', '2026-02-05')",
  tstzmultirange: "tstzmultirange(tstzrange('2026-11-03 20:15+01', null))",
  point: "point(0.1 + 0.2::float8, 1 / 3.0)",
  money: "'12.34'::money",
  regclass: "'public.vote'::regclass",
  "regclass[]": "array['public.vote'::regclass]",
  "public.reference": "row('public.vote'::regclass)::public.reference",
  "public.span": "row('2026-11-03 20:15+01', 0.1::float8 + 0.2::float8, '1 day')::public.span",
  "public.moment": "'2026-11-03 20:15+01'::public.moment",
  "public.reals": "array[0.1::float8 + 0.2::float8]::public.reals",
}

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    for (const level of ["row", "statement"])
      t.test(
        `a writer's settings change nothing in the log, whatever the types, inserts by ${level}`,
        async (t) => {
          const db = await database(t, { version })
          await db.query(`create type public.span as (at timestamptz, f float8, i interval); create type public.reference as ("table" regclass);
        create domain public.moment as timestamptz; create domain public.reals as float8[]`)
          const tables = Object.keys(COLUMNS).map((type, n) => ({ type, table: `public.t${n}` }))
          for (const { type, table } of tables)
            await db.query(
              `create table ${table} (id int primary key, v ${type}, n int default 0); select relay.track('${table}', level => '${level}')`,
            )
          const writer = await db.session()
          const write = async () => {
            for (const { type, table } of tables)
              await writer.query(
                `insert into ${table} values (1, ${COLUMNS[type]}); update ${table} set n = 1; delete from ${table}`,
              )
          }
          await write()
          const plain = await readLog(db)
          for (const setting of SETTINGS) await writer.query(setting)
          await write()
          const set = (await readLog(db)).slice(plain.length)
          t.equal(set.length, 3 * tables.length)
          for (const [n, entry] of plain.entries()) {
            const label = `${entry.op} of ${tables[Math.floor(n / 3)]?.type}`
            t.same([set[n]?.oldText, set[n]?.newText], [entry.oldText, entry.newText], label)
          }
          t.match(plain[0]?.new, { v: "2026-11-03T19:15:00.25+00:00" })
        },
      )

    t.test("the writer's settings are as before after a captured statement", async (t) => {
      const db = await database(t, { version })
      const writer = await db.session()
      await writer.query("insert into vote default values")
      for (const setting of SETTINGS) await writer.query(setting)
      const settings = () =>
        writer.query("select name, setting from pg_settings where context = 'user' order by name")
      const before = (await settings()).rows
      await writer.query("insert into public.vote default values; update public.vote set votes = 2")
      t.same((await settings()).rows, before)
    })

    t.test("a column retyped after track is the same text in every session, too", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table x (id int primary key, v text); select relay.track('x');
        alter table x alter v type timestamptz using v::timestamptz`)
      const writer = await db.session()
      await writer.query(
        "set timezone = 'Pacific/Chatham'; insert into x values (1, '2026-11-03 20:15:00+00')",
      )
      t.match((await lastEntry(db)).new, { id: 1, v: "2026-11-03T20:15:00+00:00" })
      const zone = async () => (await writer.query("show timezone")).rows[0].TimeZone
      t.equal(await zone(), "Pacific/Chatham")
      await writer.query("begin; set local timezone = 'Asia/Tokyo'; update x set v = v + interval '1 h'")
      t.equal(await zone(), "Asia/Tokyo")
      await writer.query("commit")
      t.equal(await zone(), "Pacific/Chatham", "as the writer set it, after the transaction too")
      t.match((await lastEntry(db)).new, { id: 1, v: "2026-11-03T21:15:00+00:00" })
    })
  })
}
