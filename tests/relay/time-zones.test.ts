/** Writers in other time zones: clients are sent the text that a session in UTC would have written. */

import t, { type Test } from "tap"
import type { Client, Received } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow } from "../helpers/log.ts"
import { startRelay } from "../helpers/relay.ts"

/** Columns whose texts PostgreSQL itself makes in UTC, for a whole table that has one. */
const OTHERS = `alter table visit add breaks timestamptz[], add span tstzrange, add opens timetz;
  create function fill() returns trigger language plpgsql as $$ begin
    new.breaks := array[new.at, null]; new.span := tstzrange(new.at, 'infinity'); new.opens := '12:00'; return new;
  end $$;
  create trigger fill before insert on visit for each row execute function fill()`

/** A table of instants, the key among them, and a writer in Tokyo. */
async function moments(t: Test, level = "row", others = "") {
  const db = await database(t)
  await db.query(`create domain moment as timestamptz;
    create table visit (id int, at timestamptz, ends moment, page text, primary key (id, at)); ${others};
    select relay.track('visit', level => '${level}')`)
  const writer = await db.session()
  await writer.query("set timezone = 'Asia/Tokyo'")
  return { db, writer }
}

const visit = (id: number, at: string, page = "null") =>
  `insert into visit values (${id}, '${at}', '${at}', ${page})`

/** All rows, as a session in UTC writes them. */
async function inUtc(db: Database): Promise<unknown[]> {
  const session = await db.session()
  await session.query("set timezone = 'UTC'")
  const { rows } = await session.query<{ row: unknown }>(
    "select row_to_json(v) as row from visit v order by id",
  )
  return rows.map(({ row }) => row)
}

const dataOf = (changes: Received[]) => changes.map(({ data }) => data)

/** Within a day of the change of its date, and at the ends of time. */
const INSTANTS = [
  "2026-11-28 08:30",
  "2026-11-28 09:30:00.25",
  "infinity",
  "9999-12-31 23:59:59",
  "0044-03-15 12:00 BC",
]

/** Random text, so that no row is stored small. */
const LARGE = "(select string_agg(md5(n::text), '') from generate_series(1, 1000) n)"

for (const level of ["row", "statement"])
  for (const others of ["", OTHERS])
    t.test(
      `a row${others && " with other types"} is in UTC, however it was captured, at ${level} level`,
      async (t) => {
        const { db, writer } = await moments(t, level, others)
        const relay = await startRelay(t, db)
        const cursor = await cursorNow(db)
        const client = await relay.connect()
        for (const [i, instant] of INSTANTS.entries()) {
          await writer.query(visit(2 * i, instant))
          await writer.query(visit(2 * i + 1, instant, LARGE))
        }
        const rows = await inUtc(db)
        t.match(rows[0], { at: "2026-11-27T23:30:00+00:00", ends: "2026-11-27T23:30:00+00:00" })
        if (others !== "")
          t.match(rows[0], { breaks: ["2026-11-27T23:30:00+00:00", null], opens: "12:00:00+09" })
        t.same(dataOf(await client.count(rows.length)), rows)
        const returned = await (await startRelay(t, db)).connect({}, `?cursor=${cursor}`)
        t.same(dataOf(await returned.count(rows.length)), rows, "from the log")
      },
    )

t.test(
  "keys are in UTC wherever they stand, so that they fit those of a writer in another zone",
  async (t) => {
    const { db, writer } = await moments(t)
    const relay = await startRelay(t, db)
    const client = await relay.connect()
    await writer.query(visit(1, "2026-11-28 08:30"))
    await writer.query("update visit set at = '2026-11-28 09:30', ends = '2026-11-28 10:00'")
    await writer.query("set timezone = 'America/New_York'")
    await writer.query("update visit set page = 'x'")
    await writer.query("delete from visit")
    const [from, to] = [
      { id: 1, at: "2026-11-27T23:30:00+00:00" },
      { id: 1, at: "2026-11-28T00:30:00+00:00" },
    ]
    const [created, moved, changed, deleted] = await client.count(4)
    t.same(created?.key, from)
    t.same(moved?.key, to)
    t.same(moved?.previous_key, from)
    t.same(moved?.before, { at: from.at, ends: from.at })
    t.same(changed?.changed, ["page"], "the zone of the writer is no change")
    t.same(changed?.key, to)
    t.same(deleted?.key, to)
    t.match(deleted?.data, { ...to, ends: "2026-11-28T01:00:00+00:00" })
  },
)

t.test("keys of rows that are too large to be sent, too", async (t) => {
  const { db, writer } = await moments(t)
  await db.query("select relay.track('visit', max_bytes => 1024)")
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  await writer.query(visit(1, "2026-11-28 08:30", LARGE))
  await writer.query(visit(2, "2026-11-28 08:30", "repeat('x', 1500)"))
  const at = "2026-11-27T23:30:00+00:00"
  t.match(await client.count(2), [
    { key: { id: 1, at }, oversize: true },
    { key: { id: 2, at }, oversize: true },
  ])
})

t.test("a filter finds the instant, not the writer's clock", async (t) => {
  const { db, writer } = await moments(t)
  const relay = await startRelay(t, db)
  const filtered = (where: object): Promise<Client> =>
    relay.connect({}, `?where=${encodeURIComponent(JSON.stringify(where))}`)
  const from = await filtered({ at: { gte: "2026-11-28T00:00:00Z" } })
  const exactly = await filtered({ at: "2026-11-28T09:30:00+09:00" })
  const later = await filtered({ ends: { gt: "2026-11-28T00:30:00Z" } })
  await writer.query(visit(1, "2026-11-28 08:30"))
  await writer.query(visit(2, "2026-11-28 09:30"))
  await writer.query(visit(3, "infinity"))
  const ids = (changes: Received[]) => changes.map(({ key }) => key?.id)
  t.same(ids(await from.count(2)), [2, 3])
  t.same(ids(await later.count(1)), [3])
  await writer.query("set timezone = 'Europe/London'")
  await writer.query("update visit set page = 'x' where id = 2")
  t.same(ids(await exactly.count(2)), [2, 2])
})
