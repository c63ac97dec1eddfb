/** Values compare in a filter as PostgreSQL compares them, and instants of any session come out in UTC. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import { utcText } from "../../relay/change/instant.ts"
import { readValue } from "../../relay/change/scalar.ts"
import { amendFilter, type Filter, FilterFields, rowPasses } from "../../relay/protocol/filter.ts"
import { database } from "../helpers/database.ts"
import { newSeed } from "../helpers/random.ts"

const seed = newSeed()
const sample = (texts: fc.Arbitrary<string>, numRuns: number) => fc.sample(texts, { seed, numRuns })

const digits = (min: number, max: number, width = 2) =>
  fc.integer({ min, max }).map((value) => String(value).padStart(width, "0"))
const years = fc.oneof(
  digits(1, 9_999, 4).map((year) => [year, ""] as const),
  fc.constantFrom("0001", "0004", "1970", "2000", "9999", "10000").map((year) => [year, ""] as const),
  digits(10_000, 294_275).map((year) => [year, ""] as const),
  digits(1, 4_712, 4).map((year) => [year, " BC"] as const),
)
const days = fc.oneof(
  fc.tuple(digits(1, 12), digits(1, 28)).map(([month, day]) => `${month}-${day}`),
  fc.constantFrom("01-01", "02-28", "03-01", "12-31"),
)
const clock = fc.oneof(
  fc
    .tuple(digits(0, 23), digits(0, 59), digits(0, 59), fc.option(digits(0, 999_999, 6)))
    .map(
      ([hour, minute, second, micro]) => `${hour}:${minute}:${second}${micro === null ? "" : `.${micro}`}`,
    ),
  fc.constantFrom("00:00:00", "23:59:59.999999", "24:00:00"),
)
const zone = fc.oneof(
  fc.constant("+00"),
  fc.tuple(fc.constantFrom("+", "-"), digits(0, 14), digits(0, 59)).map(([sign, h, m]) => `${sign}${h}:${m}`),
  fc.constantFrom("+05:53:28", "-00:00:01", "+14", "-08"),
)
const ends = fc.constantFrom("infinity", "-infinity")
const dated = (rest: fc.Arbitrary<string>) =>
  fc.tuple(years, days, rest).map(([[year, era], day, rest]) => `${year}-${day}${rest}${era}`)
const dates = fc.oneof({ weight: 9, arbitrary: dated(fc.constant("")) }, { weight: 1, arbitrary: ends })
const timestamps = fc.oneof(
  { weight: 9, arbitrary: dated(clock.map((time) => ` ${time}`)) },
  { weight: 1, arbitrary: ends },
)
const instants = fc.oneof(
  { weight: 9, arbitrary: dated(fc.tuple(clock, zone).map(([time, zone]) => ` ${time}${zone}`)) },
  { weight: 1, arbitrary: ends },
  { weight: 1, arbitrary: fc.constantFrom("4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00") },
)
const zonedTimes = fc.oneof(
  fc.tuple(clock, zone).map(([time, zone]) => `${time}${zone}`),
  fc.constantFrom("12:00:00+00", "13:00:00+01", "11:00:00-01", "12:30:00+00:30"),
)
const special = fc.constantFrom("NaN", "Infinity", "-Infinity", "0", "-0", "1e-5", "1e15")
const numerics = fc.oneof(
  special,
  fc.double({ min: 1e-60, max: 1e60, noNaN: true }).map(String),
  fc
    .tuple(fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }), digits(0, 99))
    .map(([n, part]) => `${n}.${part}`),
)
const floats = fc.oneof(special, fc.double({ noNaN: true }).map(String), digits(-9, 9))

const filterOf = (tests: object): Filter =>
  amendFilter(undefined, FilterFields.parse({ where: { a: tests } })) as Filter
/** By the operators of a filter: -1, 0 or 1. */
function orderByFilter(raw: string, operand: string | number): number | undefined {
  const holds = (tests: object) => rowPasses(filterOf(tests), () => readValue(raw))
  const [below, above, equal] = [holds({ lt: operand }), holds({ gt: operand }), holds({ eq: operand })]
  assert.equal(holds({ lte: operand }), below || equal)
  assert.equal(holds({ gte: operand }), above || equal)
  assert.equal(holds({ neq: operand }), !equal)
  assert.equal(holds({ in: [operand, "?"] }), equal)
  assert.equal(Number(below) + Number(above) + Number(equal), 1, `${raw} and ${operand}`)
  return below ? -1 : above ? 1 : 0
}

const TYPES: [type: string, texts: fc.Arbitrary<string>][] = [
  ["timestamptz", instants],
  ["timestamp", timestamps],
  ["date", dates],
  ["time", clock],
  ["timetz", zonedTimes],
  ["numeric", numerics],
  ["float8", floats],
]
/** Those that PostgreSQL compares with one another. */
const PAIRS: [one: string, two: string][] = [
  ...TYPES.map(([type]): [string, string] => [type, type]),
  ["date", "timestamp"],
  ["date", "timestamptz"],
  ["timestamp", "timestamptz"],
  ["timestamptz", "date"],
]

t.test(`a filter orders values as PostgreSQL does (seed ${seed})`, async (t) => {
  const db = await database(t, { empty: true })
  const session = await db.session()
  await session.query("set timezone = 'UTC'")
  for (const [one, two] of PAIRS) {
    const texts = (type: string) => sample(new Map(TYPES).get(type) ?? fc.constant(""), 60)
    const { rows } = await session.query<{ one: string; two: string; found: number }>(
      `select to_json(a.v)::text as one, to_json(b.v)::text as two,
              case when a.v < b.v then -1 when a.v = b.v then 0 else 1 end as found
       from (select text::${one} as v from unnest($1::text[]) text) a,
            (select text::${two} as v from unnest($2::text[]) text) b`,
      [texts(one), texts(two)],
    )
    const wrong = rows.filter(({ one, two, found }) => {
      const operand = JSON.parse(two) as string | number
      return orderByFilter(one, typeof operand === "number" ? two : operand) !== found
    })
    t.same(wrong.slice(0, 3), [], `${one} and ${two}: ${rows.length} pairs`)
    t.equal(rows.length, 3_600)
  }
})

t.test(`an instant of a session in any time zone comes out as of one in UTC (seed ${seed})`, async (t) => {
  const db = await database(t, { empty: true })
  const session = await db.session()
  const { rows: named } = await session.query<{ name: string }>("select name from pg_timezone_names")
  const zones = [
    ...fc.sample(fc.constantFrom(...named.map(({ name }) => name)), { seed, numRuns: 60 }),
    ...["UTC", "Asia/Kolkata", "America/New_York", "Africa/Monrovia", "Europe/Amsterdam", "Pacific/Apia"],
    ...["<x>-05:53", "<x>+14:59", "<x>-14:59"],
  ]
  const texts = sample(instants, 300)
  const written = async (zone: string) => {
    await session.query("select set_config('timezone', $1, false)", [zone])
    const { rows } = await session.query<{ text: string }>(
      "select row_to_json(r)::text as text from (select text::timestamptz as v from unnest($1::text[]) text) r",
      [texts],
    )
    return rows.map(({ text }) => (JSON.parse(text) as { v: string }).v)
  }
  const inUtc = await written("UTC")
  let differed = 0
  for (const zone of zones) {
    const local = await written(zone)
    differed += local.filter((text, i) => text !== inUtc[i]).length
    const wrong = local.flatMap((text, i) =>
      utcText(text) === inUtc[i] ? [] : [`${text} is ${inUtc[i]}, not ${utcText(text)}`],
    )
    t.same(wrong.slice(0, 3), [], zone)
  }
  t.ok(differed > 5_000, `${differed} were written in another zone`)
})
