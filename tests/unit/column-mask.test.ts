/** Restricted columns, against a rule written anew from the words of the README. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import type { Change } from "../../relay/change/change.ts"
import { isRestricted, maskOf, NO_MASK, shown, shownText } from "../../relay/change/column-mask.ts"
import { scanRow } from "../../relay/change/row.ts"
import { valueIn } from "../../relay/change/row-values.ts"
import { NULL } from "../../relay/change/scalar.ts"
import { frameOf } from "../../relay/fanout/frames.ts"
import { readChange } from "../helpers/change.ts"

const COLUMNS = ["id", "name", "note", 'q"uote', "__proto__", "constructor"]
const ROLES = ["admin", "teller", "__proto__"]

type Values = [column: string, value: fc.JsonValue][]
/** As PostgreSQL writes it. */
const textOf = (values: Values): string =>
  `{${values.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value, null, 1)}`).join(", ")}}`

const values: fc.Arbitrary<Values> = fc.tuple(
  ...COLUMNS.map((name) => fc.tuple(fc.constant(name), fc.oneof(fc.jsonValue(), fc.constantFrom(1, 2)))),
)
const roles = fc.subarray(ROLES).map((held) => new Set(held))
const restricted = fc.uniqueArray(
  fc.tuple(fc.constantFrom(...COLUMNS.filter((name) => name !== "id")), fc.subarray(ROLES)),
  { selector: ([name]) => name },
)
type Restricted = [string, string[]][]

/** Everybody sees a column that is not restricted, and one that is who has one of its roles. */
const mayKnow = (column: string, restricted: Restricted, held: ReadonlySet<string>): boolean => {
  const found = restricted.find(([name]) => name === column)
  return found === undefined || found[1].some((role) => held.has(role))
}

const change = (op: string, old: Values | null, now: Values | null, restricted: Restricted): Change =>
  readChange({
    seq: "1",
    xid: "2",
    at: "2026-01-01 00:00:00+00",
    table: "public.t",
    op,
    type: "t_update",
    old: old && textOf(old),
    new: now && textOf(now),
    meta: JSON.stringify({ key: ["id"], ...(restricted.length === 0 ? {} : { restricted }) }),
  })

/** Of a frame that is longer than 125 bytes, as these are. */
const textIn = (frame: Buffer): string => frame.subarray(4).toString()

const asObject = (values: Values): object => JSON.parse(textOf(values)) as object

t.test("of a row is shown what nobody restricts and what the roles allow, as it was written", async (t) => {
  const property = fc.property(values, restricted, roles, (row, restricted, held) => {
    const { meta } = change("insert", null, row, restricted) as Extract<Change, { kind: "row" }>
    const mask = maskOf(meta, held)
    const cut = scanRow(textOf(row))
    const allowed = row.filter(([name]) => mayKnow(name, restricted, held))
    assert.deepEqual(JSON.parse(shownText(cut, mask)), asObject(allowed))
    assert.deepEqual([...scanRow(shownText(cut, mask))], [...scanRow(textOf(allowed))])
    for (const name of COLUMNS) {
      assert.equal(shown(cut, name, mask), mayKnow(name, restricted, held) ? valueIn(cut, name) : NULL)
      assert.equal(
        isRestricted(meta, name),
        restricted.some(([each]) => each === name),
      )
    }
    assert.equal(mask === NO_MASK, allowed.length === row.length)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})

t.test("a frame says nothing of what is not shown, whoever was shown the change before", async (t) => {
  const property = fc.property(
    values,
    values,
    restricted,
    fc.array(roles, { minLength: 2, maxLength: 4 }),
    (before, after, restricted, all) => {
      const update = change("update", before, after, restricted) as Extract<Change, { kind: "row" }>
      const [old, now] = [scanRow(textOf(before)), scanRow(textOf(after))]
      for (const held of all) {
        const frame = frameOf({ change: update, as: "whole", mask: maskOf(update.meta, held) }, true)
        const told = JSON.parse(textIn(frame)) as { data: object; before: object; changed: string[] }
        const allowed = (row: Values) => row.filter(([name]) => mayKnow(name, restricted, held))
        const changed = COLUMNS.filter((name) => mayKnow(name, restricted, held)).filter(
          (name) => old.get(name) !== now.get(name),
        )
        assert.deepEqual(told.data, asObject(allowed(after)))
        assert.deepEqual(told.changed, changed)
        assert.deepEqual(told.before, asObject(before.filter(([name]) => changed.includes(name))))
      }
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})
