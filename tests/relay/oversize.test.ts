/** Rows that are larger than what is sent: clients are told which rows, and the writer never fails. */

import t, { type Test } from "tap"
import type { Received } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow } from "../helpers/log.ts"
import { metricOf, startRelay, type TestRelay } from "../helpers/relay.ts"
import { keptCursor } from "../helpers/returning.ts"

/** Text in JSON and so many bytes of it, of which PostgreSQL stores next to nothing. */
const text = (bytes: number) => `repeat('x', ${bytes})`

/** A tracked table of which no more than 4 kB a change are sent. */
async function scans(t: Test, level = "row"): Promise<Database> {
  const db = await database(t)
  await db.query(`create table scan (id bigint primary key, committee_id int, page text, note text);
    select relay.track('scan', level => '${level}', max_bytes => 4096)`)
  return db
}

/** What all that came tells of the rows, without the fields that are another's each time. */
const told = (changes: Received[]) =>
  changes.map(({ action, key, previous_key, data, oversize, channels }) => ({
    action,
    key,
    ...(previous_key === undefined ? {} : { previous_key }),
    ...(data === undefined ? {} : { data }),
    ...(oversize === undefined ? {} : { oversize }),
    ...(channels === undefined ? {} : { channels }),
  }))

const everywhere = (...committees: number[]) => [
  "election_updates",
  ...committees.map((id) => `committee:${id}`),
]

const LARGE = { data: null, oversize: true }

/** Each way in which a row can be too large, and what is told of it. */
async function writeAll(db: Database): Promise<void> {
  await db.query(`insert into scan values (1, 7, ${text(5000)})`)
  await db.query("update scan set note = 'the page stays'")
  await db.query("update scan set id = 2")
  await db.query("update scan set page = null")
  await db.query("update scan set note = 'small'")
  await db.query(`update scan set page = ${text(5000)}`)
  await db.query("delete from scan")
}

const ALL = [
  { action: "create", key: { id: "1" }, ...LARGE, channels: everywhere(7) },
  { action: "update", key: { id: "1" }, ...LARGE, channels: everywhere(7) },
  { action: "update", key: { id: "2" }, previous_key: { id: "1" }, ...LARGE, channels: everywhere(7) },
  { action: "update", key: { id: "2" }, ...LARGE, channels: everywhere(7) },
  {
    action: "update",
    key: { id: "2" },
    data: { id: 2, committee_id: 7, page: null, note: "small" },
    channels: everywhere(7),
  },
  { action: "update", key: { id: "2" }, ...LARGE, channels: everywhere(7) },
  { action: "delete", key: { id: "2" }, ...LARGE, channels: everywhere(7) },
]

t.test("it is told by its key and its channels, and nothing of it in any field", async (t) => {
  const db = await scans(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect({ committees: [7] })
  const other = await relay.connect({ committees: [8] })
  await writeAll(db)
  t.same(told(await client.count(ALL.length)), ALL)
  for (const text of client.texts) t.notMatch(text, /xxx/)
  t.equal(await metricOf(relay, "relay_oversize_changes_total", 'table="public.scan"'), 6)
  await db.query("insert into scan values (9, 8)")
  t.match(await other.count(1), [{ key: { id: "9" } }])
})

t.test("who returns with a cursor gets the same, from memory and from the log", async (t) => {
  const db = await scans(t)
  const relay = await startRelay(t, db)
  const witness = await relay.connect()
  await db.query("insert into vote (votes) values (1)")
  await witness.count(1)
  const cursor = await keptCursor(witness)
  await writeAll(db)
  await witness.count(1 + ALL.length)
  for (const [from, source] of [
    ["memory", relay],
    ["log", await startRelay(t, db)],
  ] as const)
    t.same(told(await comeBack(source, cursor, ALL.length)), ALL, from)
})

/** @returns what was missed. */
async function comeBack(relay: TestRelay, cursor: string, missed: number): Promise<Received[]> {
  const client = await relay.connect({}, `?cursor=${cursor}`)
  const answer = await client.first("the answer", ({ type }) => type === "connection_success")
  t.equal(answer.recovered, true)
  return client.count(missed)
}

t.test("a row that moves between channels leaves the one and comes into the other", async (t) => {
  const db = await scans(t)
  const relay = await startRelay(t, db)
  const from = await relay.connect({}, "?channels=committee:7")
  const to = await relay.connect({}, "?channels=committee:8")
  await db.query(`insert into scan values (1, 7, ${text(5000)})`)
  await db.query("update scan set committee_id = 8")
  t.same(told(await from.count(2)), [
    { action: "create", key: { id: "1" }, ...LARGE, channels: everywhere(7) },
    { action: "leave", key: { id: "1" } },
  ])
  t.same(told(await to.count(1)), [{ action: "create", key: { id: "1" }, ...LARGE, channels: everywhere(8) }])
})

t.test("a filter on what is not known of it lets it pass, one on its channels does not", async (t) => {
  const db = await scans(t)
  const relay = await startRelay(t, db)
  const filtered = (where: object) => relay.connect({}, `?where=${encodeURIComponent(JSON.stringify(where))}`)
  const byNote = await filtered({ note: "wanted" })
  const byScope = await filtered({ committee_id: 8 })
  await db.query(`insert into scan values (1, 7, ${text(5000)}, 'unwanted'), (2, 7, null, 'unwanted'),
    (3, 8, null, 'wanted'), (4, 8, ${text(5000)}, 'unwanted')`)
  t.match(
    (await byNote.count(3)).map(({ key }) => key?.id),
    ["1", "3", "4"],
  )
  t.match(
    (await byScope.count(2)).map(({ key }) => key?.id),
    ["3", "4"],
  )
})

t.test("at statement level too: of many rows those that are large come by their keys", async (t) => {
  const db = await scans(t, "statement")
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  await db.query(
    `insert into scan select n, 7, case when n % 2 = 0 then ${text(5000)} end from generate_series(1, 4) n`,
  )
  t.match(told(await client.count(4)), [
    { key: { id: "1" }, data: { id: 1, page: null } },
    { key: { id: "2" }, ...LARGE },
    { key: { id: "3" }, data: { id: 3, page: null } },
    { key: { id: "4" }, ...LARGE },
  ])
})

t.test(
  "keys of a tree that move, in any order that the log has them, end where the table has them",
  async (t) => {
    const db = await database(t)
    await db.query(`create table scan (id bigint primary key deferrable, page text, note text) partition by range (id);
    create table scan_low partition of scan for values from (0) to (3);
    create table scan_high partition of scan default;
    select relay.track('scan', max_bytes => 1024)`)
    const relay = await startRelay(t, db)
    const client = await relay.connect()
    await db.query(`insert into scan select n, ${text(2000)} from generate_series(1, 4) n`)
    await db.query("update scan set id = id + 1")
    await db.query("begin isolation level repeatable read; update scan set note = 'x' where id < 4; commit")
    await db.query("begin; delete from scan where id = 5; update scan set id = 5 where id = 2; commit")
    await db.query(`select relay.broadcast('election_updates', '"done"')`)
    await client.first("the mark", ({ payload }) => payload === "done")
    const keys = new Set<unknown>()
    for (const { type, action, key, previous_key, oversize } of client.changes()) {
      if (type === "message") continue
      t.ok(oversize, `${action} ${key?.id}`)
      keys.delete((previous_key as Received["key"])?.id)
      if (action === "delete") keys.delete(key?.id)
      else keys.add(key?.id)
    }
    t.same([...keys].sort(), ["3", "4", "5"])
  },
)

t.test("a value that no JSON text can hold is written, told, and resumed over", async (t) => {
  const db = await database(t)
  // As text in JSON it has more characters than a string of JavaScript can have.
  await db.query(`create table big (id int primary key, body bytea, note text); select relay.track('big')`)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  const cursor = await cursorNow(db)
  await db.query("insert into big values (1, convert_to(repeat('x', 300 * 1024 * 1024), 'UTF8'))")
  await db.query("update big set note = 'beside it'")
  await db.query("delete from big")
  const all = ["create", "update", "delete"].map((action) => ({
    action,
    key: { id: 1 },
    ...LARGE,
    channels: everywhere(),
  }))
  t.same(told(await client.count(3)), all)
  t.same(told(await comeBack(await startRelay(t, db), cursor, 3)), all, "by a relay that has to read it")
  t.equal(relay.relay.status().feed.kind, "up")
})
