/** Rows as JSON text: cut into values, never parsed into numbers. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import { scalarText, scanRow } from "../../relay/change/row.ts"
import { timesAsMuch } from "../helpers/cpu.ts"

const space = fc.string({ unit: fc.constantFrom(" ", "\n", "\t", "\r"), maxLength: 3 })
const name = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.string({ unit: fc.constantFrom('"', "\\", "{", "}", "[", "]", ",", ":", "n", "\n", "\u0000", "é") }),
  fc.constantFrom("", "__proto__", "constructor", "0", "10", "2"),
)
/** A name as JSON, any of its characters escaped in one of the ways there are. */
const quoted = (text: string, escapes: boolean) =>
  escapes
    ? `"${text.replaceAll(/[\s\S]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)}"`
    : JSON.stringify(text)
const number = fc.oneof(
  fc.bigInt().map(String),
  fc
    .tuple(fc.bigInt(), fc.nat(), fc.integer())
    .map(([whole, part, exponent]) => `${whole}.${part}e${exponent}`),
  fc.constantFrom("0", "-0", "1e400", "0.10", "9223372036854775807", "12345678901234567890.123456789"),
)
const value = fc.oneof(
  number,
  fc
    .tuple(fc.jsonValue(), fc.constantFrom(undefined, 1, "\t"))
    .map(([json, indent]) => JSON.stringify(json, null, indent)),
  name.map((text) => JSON.stringify([text, { [text]: text }])),
  fc.tuple(name, fc.boolean()).map(([text, escapes]) => quoted(text, escapes)),
)
const members = fc.uniqueArray(fc.tuple(name, value, fc.boolean(), space, space, space, space), {
  selector: ([column]) => column,
  maxLength: 8,
})

t.test("every value is the slice of text that was written, in the order of the row", async (t) => {
  const property = fc.property(members, space, (columns, within) => {
    const text = `${within}{${within}${columns
      .map(([column, raw, escapes, a, b, c, d]) => `${a}${quoted(column, escapes)}${b}:${c}${raw}${d}`)
      .join(",")}}${within}`
    assert.deepEqual(
      [...scanRow(text)],
      columns.map(([column, raw]) => [column, raw]),
    )
    const parsed = JSON.parse(text) as object
    assert.deepEqual(
      new Map([...scanRow(text)].map(([column, raw]) => [column, JSON.parse(raw)])),
      new Map(Object.entries(parsed)),
    )
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 2_000 }))
})

t.test("of the values that are asked for each comes, whatever else is in the row", async (t) => {
  const property = fc.property(
    members,
    fc.array(name, { maxLength: 2 }),
    fc.nat(8),
    (columns, others, count) => {
      const text = `{${columns.map(([column, raw, escapes]) => `${quoted(column, escapes)}:${raw}`).join(",")}}`
      const wanted = [...others, ...columns.slice(0, count).map(([column]) => column)].reverse()
      const all = scanRow(text)
      const found = scanRow(text, wanted)
      for (const column of wanted) assert.equal(found.get(column), all.get(column))
      assert.ok([...found.keys()].every((column) => wanted.includes(column)))
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})

t.test("text that is no row is refused, or at least never hangs", async (t) => {
  for (const text of ["", " ", "null", "[]", '"{}"', "1", "]", "x{}"])
    t.throws(() => scanRow(text), SyntaxError, JSON.stringify(text))
  for (const text of ['{"a', '{"a":"b', '{"a":[', '{"a":{"b":"}', "{,}", "{a:1}", '{"\\x":1}'])
    t.throws(() => scanRow(text), SyntaxError, text)
  const soup = fc.string({ unit: fc.constantFrom(...'{}[]",:\\ n1\n'.split("")), maxLength: 40 })
  const property = fc.property(soup, (text) => {
    try {
      scanRow(`{${text}`)
    } catch (error) {
      assert.ok(error instanceof SyntaxError)
    }
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 2_000 }))
})

t.test("a row of a thousand columns and one of a million characters are cut in no time", async (t) => {
  const wide = Object.fromEntries(
    Array.from({ length: 1_000 }, (_, index) => [`column ${index}`, "x".repeat(1_000)]),
  )
  const long = { a: '"\\'.repeat(500_000), b: [[["]}"]]] }
  for (const row of [wide, long]) {
    const text = JSON.stringify(row)
    t.equal(scanRow(text).size, Object.keys(row).length)
    const times = timesAsMuch(
      () => scanRow(text),
      () => JSON.parse(text),
    )
    t.ok(times < 100, `${times} times what it takes to parse it`)
  }
})

t.test("a scalar names a channel as it is written", async (t) => {
  const expected: Array<[raw: string | undefined, text: string | undefined]> = [
    ["7", "7"],
    ["9007199254740993", "9007199254740993"],
    ["1.50", "1.50"],
    ["true", "true"],
    ['"a"', "a"],
    ['""', ""],
    ['"null"', "null"],
    ['"\\u00e9\\n\\""', 'é\n"'],
    ["null", undefined],
    [undefined, undefined],
    ["{}", undefined],
    ['["7"]', undefined],
  ]
  for (const [raw, text] of expected) t.equal(scalarText(raw), text, raw ?? "absent")
})
