/** Rows of the changelog, made into changes. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import {
  changedColumns,
  keyText,
  logRowOf,
  type Meta,
  type RowChange,
  readChange,
} from "../../relay/change/change.ts"
import { scanRow } from "../../relay/change/row.ts"

const META = {
  key: ["id"],
  exact: ["id"],
  scope: { committee: "committee_id", user: "user_id" },
}

/** A row of the changelog as the reading session gets it. */
const logRow = (fields: Record<string, unknown> = {}) => ({
  seq: "12",
  xid: "770",
  at: "2026-11-03 20:54:56.647706+00",
  table: "public.vote",
  op: "insert",
  type: "voting_update",
  old: null,
  new: '{"id":1,"committee_id":8,"user_id":null}',
  meta: JSON.stringify(META),
  ...fields,
})

const ALL = "election_updates"

t.test("an insert, an update and a delete have the images that they have", async (t) => {
  const old = '{"id":1,"committee_id":7,"user_id":"u 1"}'
  const inserted = readChange(logRow()) as RowChange
  t.match(inserted, {
    kind: "row",
    op: "insert",
    id: "12",
    xid: "770",
    table: "public.vote",
    type: "voting_update",
  })
  t.equal(inserted.before, undefined)
  t.same(inserted.after?.channels, [ALL, "committee:8"])
  t.equal(inserted.after?.text, logRow().new)
  const updated = readChange(logRow({ op: "update", old })) as RowChange
  t.same(updated.before?.channels, [ALL, "committee:7", "user:u 1"])
  t.same(updated.after?.channels, [ALL, "committee:8"])
  const deleted = readChange(logRow({ op: "delete", old, new: null })) as RowChange
  t.equal(deleted.before?.text, old)
  t.equal(deleted.after, undefined)
})

t.test("the other operations carry no row", async (t) => {
  t.match(readChange(logRow({ op: "truncate", new: null })), {
    kind: "table",
    op: "truncate",
    table: "public.vote",
  })
  const meta = JSON.stringify({ ...META, op: "insert", rows: 50 })
  t.match(readChange(logRow({ op: "bulk_load", new: null, meta })), {
    kind: "table",
    op: "bulk_load",
    meta: { op: "insert", rows: 50 },
  })
  t.match(
    readChange(
      logRow({ op: "message", table: null, type: "message", new: '{"a":1}', meta: '{"channel":"user:7"}' }),
    ),
    { kind: "message", channel: "user:7", payload: '{"a":1}', id: "12", xid: "770" },
  )
})

t.test("a table whose meta changes is read with each row's own", async (t) => {
  const scopes = [{ committee: "committee_id" }, { hall: "committee_id" }, {}, { committee: "committee_id" }]
  t.same(
    scopes.map(
      (scope) =>
        (readChange(logRow({ meta: JSON.stringify({ ...META, scope }) })) as RowChange).after?.channels,
    ),
    [[ALL, "committee:8"], [ALL, "hall:8"], [ALL], [ALL, "committee:8"]],
  )
  for (let table = 0; table < 1_100; table++) {
    const { after } = readChange(
      logRow({
        table: `public.t${table}`,
        meta: JSON.stringify({ ...META, scope: { [`p${table}`]: "id" } }),
      }),
    ) as RowChange
    assert.deepEqual(after?.channels, [ALL, `p${table}:1`])
  }
})

t.test("tables of one meta keep their names, and a table that is tracked anew its types", async (t) => {
  const rows = [
    { table: "public.vote", type: "voting_update" },
    { table: "public.ballot", type: "voting_update" },
    { table: "public.vote", type: "vote_update" },
    { table: "public.vote", type: "voting_update" },
  ]
  t.same(
    rows.map((row) => {
      const { table, type } = readChange(logRow(row)) as RowChange
      return { table, type }
    }),
    rows,
  )
})

t.test("a row is cut when somebody asks what is in it, and as often", async (t) => {
  const change = readChange(logRow({ new: '{"id":1,"committee_id":"8}' })) as RowChange
  t.throws(() => change.after?.channels, SyntaxError)
  t.throws(() => change.after?.channels, SyntaxError)
  t.throws(() => change.after?.row, SyntaxError)
  const { after } = readChange(logRow()) as RowChange
  t.equal(after?.channels, after?.channels, "the channels are kept")
  t.same(after?.row, after?.row)
})

t.test("what the capture does not write is refused", async (t) => {
  const wrong: Record<string, Record<string, unknown>> = {
    "no seq": { seq: null },
    "an unknown op": { op: "upsert" },
    "a row that is no object": { new: "[1]" },
    "a row that begins as none": { new: "1}" },
    "a row that is cut off": { new: '{"id":"' },
    "meta that is no JSON": { meta: "{" },
    "meta of other types": { meta: '{"key":"id"}' },
    "a scope of numbers": { meta: '{"scope":{"committee":1}}' },
    "a restriction that is none": { meta: '{"restricted":{"note":["admin"]}}' },
  }
  for (const [what, fields] of Object.entries(wrong)) t.throws(() => readChange(logRow(fields)), what)
  t.throws(() => readChange(null))
})

const meta = (fields: Partial<Meta>): Meta => ({ key: [], exact: [], scope: {}, restricted: [], ...fields })

t.test("a key is told with bigint and numeric columns as strings", async (t) => {
  const row = scanRow('{"id":9223372036854775807,"n":1.50,"small":7,"text":"a\\"b","nothing":null}')
  t.equal(keyText(meta({ key: ["id"], exact: ["id"] }), row), '{"id":"9223372036854775807"}')
  t.equal(keyText(meta({ key: ["n", "small"], exact: ["n"] }), row), '{"n":"1.50","small":7}')
  t.equal(keyText(meta({ key: ["text"], exact: [] }), row), '{"text":"a\\"b"}')
  t.equal(keyText(meta({ key: ["nothing"], exact: ["nothing"] }), row), '{"nothing":null}')
  t.equal(keyText(meta({ key: ['q"uote'] }), scanRow('{"q\\"uote":1}')), '{"q\\"uote":1}')
  t.equal(keyText(meta({ key: ["id"], exact: ["id"] }), scanRow('{"id":"NaN"}')), '{"id":"NaN"}')
})

t.test("the columns that differ are those whose text differs, in the order of the row", async (t) => {
  const row = fc.dictionary(fc.constantFrom("a", "b", "c", "d"), fc.constantFrom(0, 1, null, "0"))
  const property = fc.property(row, row, (before, after) => {
    const found = changedColumns(scanRow(JSON.stringify(before)), scanRow(JSON.stringify(after)))
    const names = [...new Set([...Object.keys(after), ...Object.keys(before)])]
    assert.deepEqual(
      found,
      names.filter((name) => !(name in before && name in after && before[name] === after[name])),
    )
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})

t.test("a change that another process reads again is the same change", async (t) => {
  const old = '{"id":12345678901234567890,"committee_id":7,"note":"\u00e9 \\" \n"}'
  for (const row of [
    logRow(),
    logRow({ op: "update", old }),
    logRow({ op: "update", old, meta: JSON.stringify({ ...META, restricted: [["__proto__", ["a", "b"]]] }) }),
    logRow({ op: "delete", old, new: null }),
    logRow({ op: "truncate", new: null }),
    logRow({
      op: "bulk_load",
      new: null,
      meta: JSON.stringify({ ...META, op: "insert", rows: 50, partition: "public.p" }),
    }),
    logRow({
      op: "message",
      type: "message",
      table: null,
      new: '{"a":1.0}',
      meta: '{"channel":"committee:7"}',
    }),
  ]) {
    const change = readChange(row)
    t.same(readChange(JSON.parse(JSON.stringify(logRowOf(change)))), change, row.op)
  }
})
