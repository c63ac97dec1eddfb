/** Rows of the changelog, made into changes. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import {
  changedColumns,
  keyText,
  type LogRow,
  logRowOf,
  type Meta,
  type RowChange,
  readChange as readRow,
} from "../../relay/change/change.ts"
import { scanRow } from "../../relay/change/row.ts"
import { readChange, logRow as rowOf } from "../helpers/change.ts"

const META = {
  key: ["id"],
  exact: ["id"],
  scope: { committee: "committee_id", user: "user_id" },
}

/** What a row of the changelog shows. */
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
  const { after } = readChange(logRow()) as RowChange
  t.equal(after?.channels, after?.channels, "the channels are kept")
  t.same(after?.row, after?.row)
})

/** A row of the log with these data. */
const withData = (op: LogRow["op"], data: string | null, fields: Partial<LogRow> = {}): LogRow => ({
  ...rowOf(logRow()),
  op,
  data,
  ...fields,
})

t.test("captured data are cut into images, versions and partition, wherever white space is", async (t) => {
  const [old, after] = ['{"id":1,"note":"}, {\\" ["}', '{"id":2,"note": {"a" : [1, "]"]}\n}']
  const found = (op: LogRow["op"], data: string) => {
    const { before, after, oldVersion, newVersion, oldXmin, live } = readRow(withData(op, data)) as RowChange
    return [before?.text, after?.text, oldVersion, newVersion, oldXmin, live]
  }
  const none = undefined
  t.same(
    found("insert", after),
    [none, after, none, none, none, true],
    "alone, of a row that nothing had touched",
  )
  t.same(found("insert", `[${after}]`), [none, after, none, none, none, false])
  t.same(found("insert", `[${after}, "(0,1)"]`), [none, after, none, ":(0,1)", none, false])
  t.same(found("insert", `[ ${after} ,"(0,1)" , "16450" ]`), [none, after, none, "16450:(0,1)", none, false])
  t.same(found("delete", `[${old}, "(7,65535)", "770"]`), [old, none, ":(7,65535)", none, "770", false])
  t.same(found("delete", `[${old}, "(0,1)", "770", "9"]`), [old, none, "9:(0,1)", none, "770", false])
  t.same(found("update", `[${old}, ${after}]`), [old, after, none, none, none, false])
  t.same(found("update", `[${old},${after},"(0,1)","(0,2)"]`), [old, after, ":(0,1)", ":(0,2)", none, false])
  t.same(found("update", `[${old}, ${after}, "(0,1)", "(0,2)", "9"]`), [
    old,
    after,
    "9:(0,1)",
    "9:(0,2)",
    none,
    false,
  ])
})

t.test("any two rows are cut where they meet", async (t) => {
  const row = fc
    .dictionary(fc.string(), fc.jsonValue())
    .map((fields) => JSON.stringify({ ...fields, id: 1 }, null, 1))
  const property = fc.property(row, row, fc.boolean(), (old, after, told) => {
    const data = `[${old}, ${after}${told ? ', "(0,1)", "(0,2)"' : ""}]`
    const change = readRow(withData("update", data)) as RowChange
    assert.deepEqual([change.before?.text, change.after?.text], [old, after])
    assert.equal(change.newVersion, told ? ":(0,2)" : undefined)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }))
})

t.test("a bulk load may carry nothing, or what is known of it", async (t) => {
  t.match(readRow(withData("bulk_load", null)), { kind: "table", op: "bulk_load", meta: META })
  const known = '{"op": "insert", "rows": 3, "partition": "public.p"}'
  t.match(readRow(withData("bulk_load", known)), { meta: { op: "insert", rows: 3, partition: "public.p" } })
})

t.test("what the capture does not write is refused", async (t) => {
  const wrong: Record<string, LogRow> = {
    "no data": withData("insert", null),
    "empty data": withData("insert", ""),
    "no JSON": withData("insert", "[{"),
    "no array": withData("delete", '{"id":1}'),
    "a row alone without its key": withData("insert", '{"committee_id":8}'),
    "a deleted row without its xmin": withData("delete", '[{"id":1}, "(0,1)"]'),
    "a partition without a place": withData("insert", '[{"id":1}, "16450"]'),
    "no row": withData("insert", "[]"),
    "a row that is no object": withData("insert", "[1]"),
    "a row that is null": withData("insert", "[null]"),
    "a row that is an array": withData("insert", "[[1]]"),
    "a row without its key": withData("insert", '[{"committee_id":8}]'),
    "a row that is cut off": withData("insert", '[{"id":"'),
    "a row with a broken value": withData("insert", '[{"id":1,"a":tru}]'),
    "one row of an update": withData("update", '[{"id":1}, "(0,1)", "(0,2)"]'),
    "too many rows": withData("delete", '[{"id":1}, {"id":2}]'),
    "too few places": withData("update", '[{"id":1}, {"id":2}, "(0,1)"]'),
    "a place that is none": withData("insert", '[{"id":1}, "0,1"]'),
    "a partition that is none": withData("insert", '[{"id":1}, "(0,1)", "sale_1"]'),
    "more after the partition": withData("insert", '[{"id":1}, "(0,1)", "1", "2"]'),
    "a row of no table": withData("insert", '[{"id":1}]', { table: null }),
    "facts that are none": withData("bulk_load", '{"rows":"many"}'),
    "a message to nobody": withData("message", '{"channel": null, "payload": 1}'),
    "a message to no name": withData("message", '{"channel": "", "payload": 1}'),
    "a message of nothing": withData("message", null),
    "meta that is no JSON": withData("insert", '[{"id":1}]', { meta: "{" }),
    "meta of other types": withData("insert", '[{"id":1}]', { meta: '{"key":"id"}' }),
    "a scope of numbers": withData("insert", '[{"id":1}]', { meta: '{"scope":{"committee":1}}' }),
    "a restriction that is none": withData("insert", '[{"id":1}]', {
      meta: '{"restricted":{"note":["admin"]}}',
    }),
  }
  for (const [what, row] of Object.entries(wrong)) t.throws(() => readRow(row), what)
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
  const old = '{"id":12345678901234567890,"committee_id":7,"note":"\u00e9 \\" \\n"}'
  const restricted = JSON.stringify({ ...META, restricted: [["__proto__", ["a", "b"]]] })
  for (const row of [
    rowOf(logRow()),
    rowOf(logRow({ op: "update", old })),
    rowOf(logRow({ op: "update", old, meta: restricted })),
    withData("update", `[${old}, {"id":1}, "(0,1)", "(0,2)", "16450"]`),
    withData("insert", `[${old}, "(0,1)"]`, { oversize: true }),
    withData("insert", old),
    withData("delete", `[${old}, "(0,1)", "770", "16450"]`),
    rowOf(logRow({ op: "delete", old, new: null })),
    rowOf(logRow({ op: "truncate", new: null })),
    withData("bulk_load", '{"op": "insert", "rows": 50, "partition": "public.p"}'),
    withData("message", '{"channel": "committee:7", "payload": {"a":1.0}}', { table: null, type: "message" }),
  ]) {
    const change = readRow(row)
    t.same(readRow(JSON.parse(JSON.stringify(logRowOf(change)))), change, row.op)
  }
})
