/** What `tail` prints: a line for each change, whatever is in the row. */

import { stripVTControlCharacters } from "node:util"
import fc from "fast-check"
import t, { type Test } from "tap"
import { type TailOptions, tail } from "../../cli/commands/tail.ts"
import { type Database, database } from "../helpers/database.ts"
import { newSeed } from "../helpers/random.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const seed = newSeed()

/** Follows the relay; stopped with the test. @returns what was printed. */
async function print(t: Test, relay: TestRelay, format: "text" | "json"): Promise<string[]> {
  const lines: string[] = []
  const notes: string[] = []
  const stopped = new AbortController()
  const ended = tail({
    url: relay.url,
    path: "/ws",
    token: token(),
    channels: [],
    filter: {},
    format,
    print: (line) => lines.push(line),
    note: (line) => notes.push(line),
    signal: stopped.signal,
  })
  t.teardown(async () => {
    stopped.abort()
    await ended
  })
  await until("it is connected", () => notes.includes("connected"))
  return lines
}

const text = fc.string({
  unit: fc.constantFrom(
    ...["a", '"', "\\", "\n", "\r\n", "\t", "\u001b[31m", "\u007f", "\u0085", "\u009b"],
    ...["\u2028", "\u2029", "\u202e", "é", "😀", "{", ","],
  ),
})
const json = fc
  .tuple(fc.jsonValue(), text)
  .map(([value, text]) => JSON.stringify({ value, text }, null, "\r\n\t "))

/** Rows that break lines wherever a row can. */
async function writeRows(db: Database): Promise<number> {
  await db.query(`
    create table "odd
name" (id int primary key, note text, doc json, big numeric);
    select relay.track('"odd\nname"', type => 'odd_update', key => '{id,note}')`)
  const rows = fc.sample(fc.tuple(text, json), { seed, numRuns: 40 })
  for (const [id, [note, doc]] of rows.entries()) {
    if (/\\u0000/.test(doc)) continue
    await db.query('insert into "odd\nname" values ($1, $2, $3, 12345678901234567890.10)', [id, note, doc])
  }
  await db.query('update "odd\nname" set note = note || E\'\\r\\n\'; delete from "odd\nname"')
  await db.query("select relay.broadcast('election_updates', E'{\"text\":\\n\"soon\"}')")
  const [found] = await db.query<{ count: number }>("select count(*)::int from relay.change")
  return found?.count ?? 0
}

t.test(`as JSON, each change is one line with the values of the row (seed ${seed})`, async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const lines = await print(t, relay, "json")
  const client = await relay.connect()
  const count = await writeRows(db)
  await until("all are printed", () => lines.length >= count)
  await client.first("the last", ({ type }) => type === "message")
  t.equal(lines.length, count)
  const breaks = /[\p{Cc}\u2028\u2029]/u
  t.same(
    lines.filter((line) => breaks.test(line)).slice(0, 3),
    [],
    "no line breaks, and commands no terminal",
  )
  t.same(
    lines.map((line) => JSON.parse(line)),
    client.messages.filter(({ tx }) => tx !== undefined),
  )
  t.match(lines[0], '"big":12345678901234567890.10', "numbers stay as PostgreSQL wrote them")
})

t.test(`as text, each change is one line (seed ${seed})`, async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const lines = await print(t, relay, "text")
  const count = await writeRows(db)
  await until("all are printed", () => lines.length >= count)
  t.equal(lines.length, count)
  const plain = lines.map(stripVTControlCharacters)
  t.same(plain.filter((line) => /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/u.test(line)).slice(0, 3), [])
  t.match(plain[0], /odd_update +create +0,/)
})

t.test("a filter or a channel that cannot be is said at once, and not tried again", async (t) => {
  const relay = await startRelay(t, await database(t))
  const follow = (options: Partial<TailOptions>) =>
    tail({
      url: relay.url,
      path: "/ws",
      token: token({ committees: [1] }),
      channels: [],
      filter: {},
      format: "json",
      print() {},
      note() {},
      signal: new AbortController().signal,
      ...options,
    })
  await t.rejects(follow({ filter: { where: { votes: {} } } }), {
    message: /where\.votes: names no operator/,
  })
  await t.rejects(follow({ channels: ["committee:2"] }), { message: /not allowed: committee:2/ })
})
