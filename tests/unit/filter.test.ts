/** Filters: what they let pass, operator by operator and type by type, and what is taken for one. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import { scanRow } from "../../relay/change/row.ts"
import { valueIn } from "../../relay/change/row-values.ts"
import { readValue } from "../../relay/change/scalar.ts"
import {
  amendFilter,
  type Filter,
  FilterFields,
  fewestValues,
  rowPasses,
} from "../../relay/protocol/filter.ts"
import { timesAsMuch } from "../helpers/cpu.ts"

/** @throws ZodError */
const filterOf = (fields: object): Filter => amendFilter(undefined, FilterFields.parse(fields)) as Filter

/** Whether a row whose column `a` has this JSON text passes. */
function passes(tests: unknown, raw: string | undefined): boolean {
  const row = scanRow(raw === undefined ? '{"b":1}' : `{"b":1,"a":${raw}}`)
  return rowPasses(filterOf({ where: { a: tests } }), (column) => valueIn(row, column))
}

const BIG = "12345678901234567890.10"

/** A value of the row, and which of these let it pass. */
const EQUALITY: [what: string, raw: string | undefined, equal: unknown[], other: unknown[]][] = [
  ["a number", "7", [7, "7", "7.0", "07", "70e-1"], [8, -7, "8", "seven", true, null, 0]],
  ["a number by value", "1.50", [1.5, "1.5", "1.500", "15e-1"], [1.51, "1.5000001", 15]],
  ["a negative number", "-0.5", [-0.5, "-0.5"], [0.5, "0.5"]],
  ["zero", "0", [0, -0, "0.00", "-0"], [1, "", null, false]],
  ["a bigint", "9007199254740993", ["9007199254740993"], ["9007199254740992", "9007199254740994"]],
  ["a numeric", BIG, [BIG, "12345678901234567890.1"], ["12345678901234567890.11"]],
  ["a float", "1e+20", ["100000000000000000000", "1e20"], ["1e21", 1]],
  ["a text", '"seven"', ["seven"], ["Seven", "seven ", 7, null, "eve"]],
  ["a text that reads as a number", '"07"', ["07"], ["7", 7]],
  ["an empty text", '""', [""], [null, 0, false, " "]],
  ["a text with escapes", '"a\\"\\n\\u00e9"', ['a"\né'], ['a\\"\\n\\u00e9']],
  ["true", "true", [true], [false, "true", 1, null]],
  ["false", "false", [false], [true, "false", 0, null]],
  ["null", "null", [null], ["null", 0, "", false]],
  ["no such column", undefined, [null], ["null", "undefined", 0, ""]],
  ["an object", '{"x":1}', [], [null, '{"x":1}', "x"]],
  ["an array", "[1]", [], [1, "[1]", null]],
  [
    "a timestamptz",
    '"2026-11-03T20:15:00+00:00"',
    [
      "2026-11-03T20:15:00+00:00",
      "2026-11-03T20:15:00Z",
      "2026-11-03T20:15:00.000Z",
      "2026-11-03T21:15:00+01:00",
      "2026-11-03T20:15",
      "2026-11-03 20:15:00",
      "2026-11-03 20:15:00+00",
    ],
    ["2026-11-03T20:15:00.000001Z", "2026-11-03", "2026-11-03T20:15:00+01:00", "2026-11-3T20:15:00Z"],
  ],
  [
    "a timestamptz to the microsecond",
    '"2026-11-03T20:15:00.647706+00:00"',
    ["2026-11-03T20:15:00.647706Z", "2026-11-03T20:15:00.6477060Z"],
    ["2026-11-03T20:15:00.647Z", "2026-11-03T20:15:00.647707Z"],
  ],
  [
    "a timestamp",
    '"2026-11-03T24:00:00"',
    ["2026-11-04T00:00:00", "2026-11-04T00:00:00Z", "2026-11-04", "2026-11-04T01:00:00+01"],
    ["2026-11-03T00:00:00", "24:00:00"],
  ],
  [
    "a year before 1",
    '"0044-03-15T12:00:00+00:00 BC"',
    ["0044-03-15T12:00:00Z BC", "-000043-03-15T12:00:00.000Z", "0044-03-15T17:53:28+05:53:28 BC"],
    ["0044-03-15T12:00:00Z", "0043-03-15T12:00:00Z BC"],
  ],
  [
    "a year after 9999",
    '"10000-01-01T07:59:59+00:00"',
    ["9999-12-31T23:59:59-08:00", "+010000-01-01T07:59:59.000Z"],
    ["1000-01-01T07:59:59Z"],
  ],
  ["a time without end", '"infinity"', ["infinity"], ["-infinity", "Infinity", "294276-12-31"]],
  ["a time of day", '"24:00:00"', ["24:00", "24:00:00.000", "23:59:60"], ["00:00:00", "24:00:00.1", "24:01"]],
  ["a time of day in a zone", '"20:15:00+02"', ["20:15+02:00"], ["19:15:00+01", "20:15:00", "18:15:00Z"]],
  ["what is no number", '"NaN"', ["NaN"], [0, "Infinity", "nan", null]],
  ["an infinite number", '"-Infinity"', ["-Infinity"], ["Infinity", "infinity", "-infinity", 0]],
  ["what is no time", '"2026-13-45T99:00:00Z"', ["2026-13-45T99:00:00Z"], ["2026-13-45T99:00:00+00:00"]],
]

t.test("eq, neq and in hold for the values that are equal, and for no others", async (t) => {
  for (const [what, raw, equal, other] of EQUALITY) {
    for (const [operands, same] of [
      [equal, true],
      [other, false],
    ] as const) {
      for (const operand of operands) {
        const name = `${what} and ${JSON.stringify(operand)}`
        t.equal(passes(operand, raw), same, `${name}, in short`)
        t.equal(passes({ eq: operand }, raw), same, `${name}: eq`)
        t.equal(passes({ neq: operand }, raw), !same, `${name}: neq`)
        if (operand !== null) t.equal(passes({ in: ["?", operand, 99] }, raw), same, `${name}: in`)
      }
    }
  }
})

/** A value of the row, and operands that are below, equal and above; with the last the two have no order. */
const ORDER: [
  what: string,
  raw: string | undefined,
  below: unknown[],
  equal: unknown[],
  above: unknown[],
  none: unknown[],
][] = [
  ["a number", "7", [6, -8, "6.99", 0], [7, "7.0"], [8, "10", "7.000000001", 1e15], ["seven", ""]],
  ["a negative number", "-7", [-8, "-10", "-7.1"], [-7], [-6, 0, 7, "-6.99"], []],
  ["zero", "0.00", [-1, "-0.001"], [0, "-0"], [1, "0.001"], []],
  ["a bigint", "9007199254740993", ["9007199254740992", 5], ["9007199254740993"], ["9007199254740994"], []],
  ["a numeric", BIG, ["12345678901234567890.09"], [BIG], ["12345678901234567890.2", "1e20"], []],
  ["a float", "1e-07", [0, "0.00000009"], ["0.0000001"], ["0.00000011", 1], []],
  ["a text", '"b"', ["a", "", "B", "aa"], ["b"], ["ba", "c", "é"], [7]],
  ["a text of digits", '"10"', ["09", "1"], ["10"], ["9", "100"], [5]],
  ["text beyond U+FFFF", '"😀"', ["z", "\uffee"], ["😀"], ["😁"], []],
  [
    "a timestamptz",
    '"2026-11-03T20:15:00.5+00:00"',
    ["2026-11-03T20:15:00Z", "2026-11-03T20:15:00.499Z", "2026-11-03T21:15:00+01:00"],
    ["2026-11-03T20:15:00.500Z", "2026-11-03T22:15:00.5+02:00"],
    ["2026-11-03T20:15:00.51Z", "2026-11-03T20:15:01+00:00", "2026-11-03T19:16:00-01:00", "10000-01-01"],
    [0],
  ],
  [
    "a year after 9999",
    '"10000-01-01T07:59:59+00:00"',
    ["2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "-infinity"],
    ["9999-12-31T23:59:59-08:00"],
    ["10000-01-01T08:00:00Z", "294276-12-31T00:00:00Z", "infinity"],
    [7],
  ],
  [
    "a date before 1",
    '"0044-03-15 BC"',
    ["0045-01-01 BC", "-infinity"],
    [],
    ["0043-01-01 BC", "0001-01-01"],
    [],
  ],
  ["a time without end", '"infinity"', ["-infinity", "5874897-12-31"], ["infinity"], [], [7]],
  ["a time of day", '"24:00:00"', ["23:59:59.999999", "00:00"], ["24:00"], [], [7]],
  ["what is no number", '"NaN"', [1e15, "Infinity", "-Infinity", "1e300"], ["NaN"], [], []],
  ["an infinite number", '"Infinity"', [1e15, "1e300", "-Infinity"], ["Infinity"], ["NaN"], []],
  ["a number under the infinite ones", "7", ["-Infinity"], [], ["Infinity", "NaN"], ["infinity"]],
  [
    "a timestamp",
    '"2026-11-03T20:15:00"',
    ["2026-11-03", "2026-11-03T20:14:59.9"],
    ["2026-11-03T20:15:00"],
    ["2026-11-03T20:15:00.1", "2026-11-04"],
    [],
  ],
  ["a date", '"2026-11-03"', ["2026-11-02", "2026-10-31"], ["2026-11-03"], ["2026-11-04", "2027-01-01"], []],
  ["true", "true", [], [], [], [0, 1, "true", ""]],
  ["null", "null", [], [], [], [0, "", "null"]],
  ["no such column", undefined, [], [], [], [0, "", "undefined"]],
  ["an array", "[1]", [], [], [], [0, 1, "[1]"]],
]

t.test("lt, lte, gt and gte hold by the order of the two, and never where there is none", async (t) => {
  for (const [what, raw, below, equal, above, none] of ORDER) {
    for (const [operands, expected] of [
      [below, { lt: false, lte: false, gt: true, gte: true }],
      [equal, { lt: false, lte: true, gt: false, gte: true }],
      [above, { lt: true, lte: true, gt: false, gte: false }],
      [none, { lt: false, lte: false, gt: false, gte: false }],
    ] as const) {
      for (const operand of operands)
        for (const [operator, holds] of Object.entries(expected))
          t.equal(
            passes({ [operator]: operand }, raw),
            holds,
            `${what} ${operator} ${JSON.stringify(operand)}`,
          )
    }
  }
})

t.test("numbers of any length compare as whole numbers of a small enough unit would", async (t) => {
  const digits = fc.string({ unit: fc.constantFrom("0", "0", "1", "9"), minLength: 1, maxLength: 30 })
  const number = fc.record({
    minus: fc.boolean(),
    whole: digits,
    fraction: digits,
    exponent: fc.integer({ min: -40, max: 40 }),
  })
  type Parts = { minus: boolean; whole: string; fraction: string; exponent: number }
  const textOf = ({ minus, whole, fraction, exponent }: Parts) =>
    `${minus ? "-" : ""}${whole.replace(/^0+(?=\d)/, "")}.${fraction}e${exponent}`
  const unitsOf = ({ minus, whole, fraction, exponent }: Parts) =>
    BigInt(whole + fraction) * 10n ** BigInt(100 - fraction.length + exponent) * (minus ? -1n : 1n)
  const property = fc.property(number, number, (value, operand) => {
    const [one, two] = [unitsOf(value), unitsOf(operand)]
    assert.equal(passes({ lt: textOf(operand) }, textOf(value)), one < two)
    assert.equal(passes({ gte: textOf(operand) }, textOf(value)), one >= two)
    assert.equal(passes({ eq: textOf(operand) }, textOf(value)), one === two)
    assert.equal(readValue(textOf(value)).identity === readValue(textOf(operand)).identity, one === two)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 3_000 }))
})

t.test("text compares as its UTF-8 does, which is PostgreSQL's order by code point", async (t) => {
  const text = fc.string({
    unit: fc.constantFrom("a", "b", "é", "\uffee", "😀", "😁", "\u{10ffff}"),
    maxLength: 4,
  })
  const property = fc.property(text, text, (value, operand) => {
    const order = Buffer.compare(Buffer.from(value), Buffer.from(operand))
    assert.equal(passes({ lt: operand }, JSON.stringify(value)), order < 0)
    assert.equal(passes({ lte: operand }, JSON.stringify(value)), order <= 0)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 2_000 }))
})

t.test("a number with very many zeros is read in a moment", async (t) => {
  const zeros = "0".repeat(100_000)
  t.equal(passes({ gt: 1 }, `1${zeros}.${zeros}1`), true)
  t.equal(passes({ eq: 1 }, `1.${zeros}`), true)
})

t.test("all conditions must hold, also several on one column", async (t) => {
  const row = scanRow('{"committee_id":7,"votes":42,"status":"valid"}')
  const all = (where: object) => rowPasses(filterOf({ where }), (column) => valueIn(row, column))
  t.equal(all({ committee_id: 7, votes: { gte: 42, lt: 50 }, status: { in: ["valid", "void"] } }), true)
  t.equal(all({ committee_id: 7, votes: { gte: 42, lt: 42 } }), false)
  t.equal(all({ committee_id: 8, votes: { gte: 42 } }), false)
  t.equal(all({ committee_id: 7, seats: { neq: 1 } }), true, "a column that is not there is not 1")
})

t.test("whatever the values, eq and neq are each other's opposite, and in is eq for each", async (t) => {
  const scalar = fc.oneof(
    fc.integer(),
    fc.string(),
    fc.boolean(),
    fc.constantFrom("1", 1, "1.0", "", "2026-11-03T20:15:00Z"),
  )
  const property = fc.property(
    fc.jsonValue(),
    fc.array(scalar, { minLength: 1, maxLength: 4 }),
    (value, operands) => {
      const raw = JSON.stringify(value)
      const equal = operands.map((eq) => passes({ eq }, raw))
      assert.deepEqual(
        operands.map((neq) => passes({ neq }, raw)),
        equal.map((same) => !same),
      )
      assert.equal(passes({ in: operands }, raw), equal.includes(true))
      const { identities } = fewestValues(filterOf({ where: { a: { in: operands } } })) ?? {
        identities: new Set(),
      }
      assert.equal(
        identities.has(readValue(raw).identity),
        equal.includes(true),
        "a lane is found by the same rule",
      )
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 3_000 }))
})

const problem = (fields: unknown): string => {
  const { error } = FilterFields.safeParse(fields)
  const issue = error?.issues[0]
  return issue === undefined ? "" : `${issue.path.join(".")}: ${issue.message}`
}

t.test("what is no filter is refused, and what is wrong with it is said", async (t) => {
  const columns = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`c${i}`, 1]))
  const refused: [fields: unknown, why: RegExp][] = [
    [{ where: "a = 1" }, /where: must be an object/],
    [{ where: [] }, /where: must be an object/],
    [{ where: { a: { between: [1, 2] } } }, /where\.a: the operators are eq, neq, in, lt, lte, gt, gte/],
    [{ where: { a: { eq: 1, like: "%" } } }, /where\.a: the operators are/],
    [{ where: { a: {} } }, /where\.a: names no operator/],
    [{ where: { a: [1] } }, /where\.a: must be an object/],
    [{ where: { a: { eq: { b: 1 } } } }, /where\.a\.eq: must be a string, a number, true or false/],
    [{ where: { a: { in: [] } } }, /where\.a\.in: Too small/],
    [{ where: { a: { in: 1 } } }, /where\.a\.in: .*expected array/],
    [{ where: { a: { in: [1, null] } } }, /where\.a\.in\.1: must be/],
    [{ where: { a: { in: Array(257).fill(1) } } }, /where\.a\.in: Too big/],
    [{ where: { a: { lt: null } } }, /where\.a\.lt: must be a string or a number/],
    [{ where: { a: { gte: true } } }, /where\.a\.gte: must be a string or a number/],
    [{ where: { a: "x".repeat(257) } }, /where\.a\.eq: Too big/],
    [{ where: { a: 2 ** 53 } }, /where\.a\.eq: a number of more than 15 digits must be sent as a string/],
    [{ where: { a: { gt: 0.1234567890123456 } } }, /where\.a\.gt: a number of more than 15 digits/],
    [{ where: JSON.parse('{"a":1e400}') }, /where\.a\.eq: must be/],
    [{ where: { ["c".repeat(64)]: 1 } }, /where: a column's name has at most 63/],
    [{ where: columns(17) }, /where: at most 16 conditions/],
    [{ where: JSON.parse('{"__proto__":1}') }, /where: must be an object, and no name in it __proto__/],
    [{ where: JSON.parse('{"a":{"eq":1,"__proto__":1}}') }, /where\.a: must be an object, and no name/],
    [{ types: [] }, /types: Too small/],
    [{ types: "voting_update" }, /types: .*expected array/],
    [{ types: [1] }, /types\.0:/],
    [{ types: Array(33).fill("a") }, /types: Too big/],
    [{ actions: [] }, /actions: Too small/],
    [{ actions: ["insert"] }, /actions\.0: .*create.*bulk_load/],
  ]
  for (const [fields, why] of refused) t.match(problem(fields), why, JSON.stringify(fields).slice(0, 60))
  for (const fields of [
    {},
    { where: null, types: null, actions: null },
    { where: {} },
    { where: columns(16), types: ["voting_update", "Any word"], actions: ["create", "leave"] },
    { where: { a: { in: Array(256).fill("x".repeat(256)) } } },
    { where: { a: Number.MAX_SAFE_INTEGER, b: -0.123456789012345, ["c".repeat(63)]: 1 } },
    { where: { constructor: 1, toString: { lt: 1 } } },
  ])
    t.equal(problem(fields), "", JSON.stringify(fields).slice(0, 60))
})

t.test("a name that JavaScript knows is a column like any other", async (t) => {
  const filter = filterOf({ where: { constructor: null, toString: 1 } })
  t.equal(
    rowPasses(filter, (column) => valueIn(scanRow('{"toString":1}'), column)),
    true,
  )
  t.equal(
    rowPasses(filter, (column) => valueIn(scanRow('{"toString":1,"constructor":2}'), column)),
    false,
  )
})

t.test("each field that is named replaces what was, null takes it away, and the others stay", async (t) => {
  const start = filterOf({ where: { a: 1 }, types: ["x"], actions: ["create"] })
  const amend = (fields: object) => amendFilter(start, FilterFields.parse(fields))
  t.same(amend({}), start)
  t.same(amend({ where: { b: 2 } }), filterOf({ where: { b: 2 }, types: ["x"], actions: ["create"] }))
  t.same(amend({ where: null }), filterOf({ types: ["x"], actions: ["create"] }))
  t.same(amend({ where: {}, types: null }), filterOf({ actions: ["create"] }))
  t.same(amend({ types: ["y"], actions: null }), filterOf({ where: { a: 1 }, types: ["y"] }))
  t.equal(amend({ where: null, types: null, actions: null }), undefined)
})

t.test("filters that are the same have one key, and others another", async (t) => {
  const key = (fields: object) => filterOf(fields).key
  t.equal(
    key({ where: { a: 1, b: { lt: 2, gt: 1 } } }),
    key({ where: { b: { gt: 1, lt: 2 }, a: { eq: 1 } } }),
  )
  t.equal(key({ where: { a: { in: [1, 2, 2] } } }), key({ where: { a: { in: [2, 1] } } }))
  t.equal(key({ where: { a: { in: [1] } } }), key({ where: { a: { eq: 1 } } }))
  t.equal(
    key({ types: ["x", "y"], actions: ["create", "leave"] }),
    key({ types: ["y", "x", "x"], actions: ["leave", "create"] }),
  )
  const different = [
    { where: { a: 1 } },
    { where: { a: "1" } },
    { where: { a: 2 } },
    { where: { b: 1 } },
    { where: { a: { neq: 1 } } },
    { where: { a: { lt: 1 } } },
    { where: { a: { lt: "1" } } },
    { where: { a: { lte: 1 } } },
    { where: { a: { in: [1, 2] } } },
    { where: { a: true } },
    { where: { a: "true" } },
    { where: { a: null } },
    { types: ["a"] },
    { types: ["create"] },
    { actions: ["create"] },
    { actions: ["delete"] },
  ].map(key)
  t.equal(new Set(different).size, different.length)
})

t.test("a text of any length compares as the whole of it, though only its beginning is read", async (t) => {
  const unit = fc.constantFrom("a", "b", '"', "\\", "\n", "\u0001", "é", "\uffee", "😀", "u")
  const beginning = fc.string({ unit, maxLength: 4 })
  const length = fc.integer({ min: 0, max: 2_100 })
  const property = fc.property(beginning, unit, length, beginning, ([...value], filler, count, operand) => {
    const text = value.join("") + filler.repeat(count)
    const asked = (operand + filler.repeat(256)).slice(0, 256).replace(/[\ud800-\udbff]$/, "")
    for (const raw of [JSON.stringify(text), escaped(text)]) {
      const order = Buffer.compare(Buffer.from(text), Buffer.from(asked))
      assert.equal(passes({ lt: asked }, raw), order < 0)
      assert.equal(passes({ gt: asked }, raw), order > 0)
      assert.equal(passes({ eq: asked }, raw), order === 0)
    }
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})

/** The same with every character escaped. */
const escaped = (text: string): string =>
  `"${text.replaceAll(/[\s\S]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)}"`

t.test("a large value costs a hundred filters little more than one", async (t) => {
  const filters = Array.from({ length: 100 }, (_, n) =>
    filterOf({ where: { a: { gte: `${n}`, lt: "zz", neq: "x" }, b: { neq: n } } }),
  )
  const text = JSON.stringify('\n"'.repeat(250_000))
  const json = JSON.stringify({ large: "x".repeat(500_000) })
  const compare = (few: readonly Filter[]) => () => {
    const row = scanRow(`{"a":${text},"b":${json}}`)
    for (const filter of few) rowPasses(filter, (column) => valueIn(row, column))
  }
  const times = timesAsMuch(compare(filters), compare(filters.slice(0, 1)))
  t.ok(times < 5, `${times} times as much`)
})
