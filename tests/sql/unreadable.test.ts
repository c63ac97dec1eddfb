/** Rows of the log that the capture did not write: no read fails on one, and whoever could have seen it is told. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t, { type Test } from "tap"
import { applySql, readMigrations } from "../../cli/schema/migrations.ts"
import type { Change } from "../../relay/change/change.ts"
import { NO_MASK } from "../../relay/change/column-mask.ts"
import type { Snapshot } from "../../relay/change/cursor.ts"
import { createChangelog } from "../../relay/feed/changelog.ts"
import type { UnreadableRow } from "../../relay/feed/entries.ts"
import type { Session } from "../../relay/feed/log-session.ts"
import { encodeChange } from "../../relay/protocol/encode.ts"
import { asciiDatabase } from "../helpers/ascii.ts"
import { type Database, database } from "../helpers/database.ts"
import { missing, VERSIONS } from "../helpers/log.ts"

/** A session, and what it has passed over. */
async function openNoting(t: Test, { url }: { url: string }) {
  const noted: UnreadableRow[] = []
  const changelog = createChangelog(
    url,
    () => {},
    (rows) => noted.push(...rows),
  )
  const session = await changelog.open()
  t.teardown(async () => {
    session.close()
    await changelog.close()
  })
  return { session, noted }
}

const MEGABYTE = 1_048_576

/** As if somebody had taken the constraints away. */
const loosen = (db: Database) =>
  db.query(
    `alter table relay.change_0 alter seq drop not null, alter at drop not null, alter what drop not null;
     alter table relay.what alter type drop not null, alter op drop not null, alter oversize drop not null`,
  )

/** The ids of kinds of rows in relay.what, and one that is not there. */
async function kindsOf(db: Database) {
  await db.query(
    "insert into vote (votes) values (0); update vote set votes = 1; delete from vote; truncate vote",
  )
  const rows = await db.query<{ id: number; op: string }>(
    `select id, op from relay.what where "table" = 'public.vote' or "table" is null order by id`,
  )
  const idOf = (op: string): number => rows.find((row) => row.op === op)?.id ?? 0
  return { insert: idOf("insert"), update: idOf("update"), delete: idOf("delete"), message: 1, none: 987_654 }
}

interface Planted {
  seq?: bigint | null | undefined
  at?: string | null | undefined
  what: number | null
  data: string | null
}

/** Writes a row into the table of the log that is filled now. */
async function plant(db: Database, row: Planted): Promise<void> {
  const given = Object.entries(row).filter(([, value]) => value !== undefined)
  const places = given.map((_, n) => `$${n + 1}`)
  await db.query(
    `insert into relay.change_0 (${given.map(([name]) => name)}) values (${places})`,
    given.map(([, value]) => (typeof value === "bigint" ? String(value) : value)),
  )
}

/** What a short read brings, if it is enough, and what pages bring. */
async function readBoth(session: Session, since: Snapshot): Promise<(readonly Change[])[]> {
  const { changes, cut } = await session.read(since, 1_000)
  const paged: Change[] = []
  for await (const page of session.pages(since, 7)) paged.push(...page.changes)
  return cut ? [paged] : [changes, paged]
}

const tablesOf = (changes: readonly Change[]) =>
  changes.flatMap((change) => (change.op === "bulk_load" ? change.table : []))

for (const version of VERSIONS)
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test(
      "a row that cannot be read stands as a bulk load of its table between its neighbours",
      async (t) => {
        const db = await database(t, { version })
        const { session, noted } = await openNoting(t, db)
        await loosen(db)
        const kinds = await kindsOf(db)
        const bad: Record<string, Planted> = {
          "no data": { what: kinds.insert, data: null },
          "no JSON": { what: kinds.insert, data: "[{" },
          "no row": { what: kinds.update, data: "[1, 2]" },
          "a row without its key": { what: kinds.delete, data: '[{"votes":1}, "(0,1)"]' },
          "no time": { what: kinds.insert, data: '[{"id":1}]', at: null },
          "no end of time": { what: kinds.insert, data: '[{"id":1}]', at: "infinity" },
          "a time before Christ": { what: kinds.insert, data: '[{"id":1}]', at: "0044-03-15 12:00:00+00 BC" },
        }
        for (const [name, row] of Object.entries(bad)) {
          const since = await session.now()
          noted.length = 0
          await db.query("insert into vote (votes) values (1)")
          await plant(db, row)
          await db.query("insert into vote (votes) values (2)")
          for (const changes of await readBoth(session, since)) {
            t.same(
              changes.map(({ op }) => op),
              ["insert", "bulk_load", "insert"],
              name,
            )
            t.same(tablesOf(changes), ["public.vote"], name)
          }
          t.match(noted, [{ table: "public.vote", fault: "malformed" }, { fault: "malformed" }], name)
        }
      },
    )

    t.test(
      "where nothing says which table, all are to be loaded, and revocations are read again",
      async (t) => {
        const db = await database(t, { version })
        const { session, noted } = await openNoting(t, db)
        await loosen(db)
        const { none } = await kindsOf(db)
        await db.query("insert into guarantee (note) values ('known to the log')")
        await db.query(
          `insert into relay.what (id, "table", type, op, oversize, meta) values (9001, 'public.vote', null, 'upsert', false, '{'), (9002, null, 'x', 'insert', false, '{}')`,
        )
        await db.query("select relay.revoke('someone')")
        for (const [what, tables] of [
          [none, "all"],
          [null, "all"],
          [9_002, "all"],
          [9_001, ["public.vote"]],
        ] as const) {
          const since = await session.now()
          noted.length = 0
          await plant(db, { what, data: '{"secret": 1}' })
          const page = await session.read(since, 10)
          const told = tablesOf(page.changes)
          if (tables === "all")
            t.ok(told.includes("public.vote") && told.includes("public.guarantee"), `${told}`)
          else t.same(told, tables)
          t.match(page.revocations, [{ value: "someone" }])
          t.match(noted, [{ fault: "unknown" }])
          t.notMatch(JSON.stringify(noted), /secret/)
        }
      },
    )

    t.test("a message, a revocation or a canary that cannot be read is passed over", async (t) => {
      const db = await database(t, { version })
      const { session, noted } = await openNoting(t, db)
      for (const what of [1, 2, 3])
        for (const data of [null, "", "null", "[]", '{"channel": null, "payload": {}}']) {
          const since = await session.now()
          noted.length = 0
          await plant(db, { what, data })
          for (const changes of await readBoth(session, since)) t.same(changes, [], `${what}: ${data}`)
          t.ok(noted.length > 0)
        }
    })

    t.test("random rows end no read, and hide none of the others", async (t) => {
      const db = await database(t, { version })
      const { session, noted } = await openNoting(t, db)
      await loosen(db)
      const kinds = await kindsOf(db)
      const json = fc.jsonValue().map((value) => JSON.stringify(value))
      const text = fc.string({ unit: "grapheme" }).map((value) => value.replaceAll("\0", ""))
      const data = fc.oneof(
        fc.constant(null),
        text,
        json,
        fc.tuple(json, json).map((parts) => `[${parts.join(", ")}]`),
        fc.tuple(fc.jsonValue(), text).map(([id, tail]) => `[{"id":${JSON.stringify(id)}}, "(0,1)"${tail}]`),
        fc.constant(`[${"[".repeat(100_000)}`),
        fc.constant(`[{"id":${"[".repeat(50_000)}${"]".repeat(50_000)}}]`),
      )
      const row = fc.record({
        seq: fc.oneof(fc.constant(undefined), fc.constant(null), fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n)),
        at: fc.oneof(fc.constant(undefined), fc.constantFrom(null, "infinity", "-infinity", "99999-01-01")),
        what: fc.oneof(
          fc.constantFrom(null, ...Object.values(kinds)),
          fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
        ),
        data,
      })
      const word = fc.oneof(fc.constant(null), text)
      const kind = fc.record({
        table: fc.oneof(word, fc.constant("public.vote")),
        type: word,
        op: fc.oneof(word, fc.constantFrom("insert", "update", "truncate", "bulk_load", "message", "canary")),
        oversize: fc.constantFrom(null, true, false),
        meta: fc.oneof(word, json, fc.constantFrom("{}", '{"key":["id"]}', '{"scope":{"committee":"id"}}')),
      })
      let kindsMade = 100_000
      let passed = 0
      const program = fc.array(row, { minLength: 1, maxLength: 12 })
      const property = fc.asyncProperty(program, kind, async (rows, { table, type, op, oversize, meta }) => {
        const since = await session.now()
        await db.query(
          'insert into relay.what (id, "table", type, op, oversize, meta) values ($1, $2, $3, $4, $5, $6)',
          [++kindsMade, table, type, op, oversize, meta],
        )
        await plant(db, { what: kindsMade, data: '[{"id":1}, "(0,1)"]' })
        for (const [n, one] of rows.entries()) {
          await plant(db, one)
          if (n % 3 === 0) await db.query("insert into vote (votes) values (777)")
        }
        noted.length = 0
        const [changes = []] = await readBoth(session, since)
        passed += noted.length
        const own = changes.filter(
          (change) =>
            change.kind === "row" && change.op === "insert" && change.after?.row.get("votes") === "777",
        )
        assert.equal(own.length, Math.ceil(rows.length / 3))
        for (const change of changes) {
          JSON.parse(encodeChange(change, "whole", NO_MASK, true))
          if (change.kind === "row") assert.ok((change.before ?? change.after)?.channels)
        }
      })
      await t.resolves(fc.assert(property, { numRuns: 60 }))
      t.ok(passed > 100, `${passed} rows were passed over`)
    })

    t.test("a page has few large rows, and one that is too large comes as a bulk load", async (t) => {
      const db = await database(t, { version })
      const { session, noted } = await openNoting(t, db)
      await loosen(db)
      const kinds = await kindsOf(db)
      const since = await session.now()
      await db.query("insert into vote (votes) values (1)")
      for (const [count, bytes] of [
        [40, MEGABYTE],
        [1, 65 * MEGABYTE],
        [40, 20_000],
      ])
        await db.query(
          `insert into relay.change_0 (what, data) select $1, '[{"id":' || g || ',"note":"' || repeat('x', $2) || '"}]' from generate_series(1, $3) g`,
          [kinds.insert, bytes, count],
        )
      await db.query("insert into vote (votes) values (2)")
      t.match(await session.read(since, 1_000), { cut: true, changes: [] })
      const changes: Change[] = []
      let pages = 0
      for await (const page of session.pages(since, 500)) {
        pages++
        let characters = 0
        for (const change of page.changes)
          if (change.kind === "row") characters += change.after?.text.length ?? 0
        t.ok(characters <= 500 * 16_384, `${characters} characters`)
        changes.push(...page.changes)
      }
      t.ok(pages >= 6, `${pages} pages`)
      t.same(
        changes.map(({ op }) => op),
        [...Array(41).fill("insert"), "bulk_load", ...Array(41).fill("insert")],
      )
      t.match(noted, [{ table: "public.vote", fault: "too_large" }])
    })

    t.test("a database without an encoding: bytes that are no UTF-8 come as a bulk load", async (t) => {
      const { home, url } = await asciiDatabase(t, version)
      const db = await home.session(url)
      // The installer refuses such a database; this one became one, or was made by hand.
      await db.query((await readMigrations()).map(applySql).join("\n"))
      const { session, noted } = await openNoting(t, { url })
      await db.query("create table public.word (id int primary key, it text)")
      await db.query("select relay.track('public.word')")
      const since = await session.now()
      await db.query(
        "insert into public.word values (1, 'plain'), (2, 'fa' || convert_from('\\xe7'::bytea, 'SQL_ASCII')), (3, 'é')",
      )
      const { changes } = await session.read(since, 10)
      t.match(changes, [
        { op: "insert", after: { text: '{"id":1,"it":"plain"}' } },
        { op: "bulk_load", table: "public.word" },
        { op: "insert", after: { text: '{"id":3,"it":"é"}' } },
      ])
      t.match(noted, [{ table: "public.word", fault: "encoding" }])
    })
  })
