/** Positions in the changelog: read, written and compared. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import {
  contains,
  cursorText,
  intersection,
  parseCursor,
  parseSnapshot,
  type Snapshot,
  union,
  visible,
} from "../../relay/change/cursor.ts"
import { timesAsMuch } from "../helpers/cpu.ts"

/** Few xids, so that snapshots meet. As in PostgreSQL the last xid below xmax has ended, and xmin is the first in flight. */
const TOP = 8
const snapshot = fc
  .tuple(fc.integer({ min: 1, max: TOP }), fc.uniqueArray(fc.integer({ min: 1, max: TOP - 1 })))
  .map(([xmax, some]) => {
    const inFlight = some.filter((xid) => xid < xmax - 1).sort((a, b) => a - b)
    return `${inFlight[0] ?? xmax}:${xmax}:${inFlight.join(",")}`
  })
const read = (text: string): Snapshot => parseSnapshot(text) ?? assert.fail(text)

/** Whether a transaction has ended, as the snapshot's text says it. */
function ended(text: string, xid: number): boolean {
  const [, xmax, inFlight] = text.split(":") as [string, string, string]
  return xid < Number(xmax) && !inFlight.split(",").includes(String(xid))
}

t.test("a snapshot contains another if all that has ended in the other has ended in it", async (t) => {
  const xids = Array.from({ length: TOP + 1 }, (_, xid) => xid)
  const property = fc.property(snapshot, snapshot, (a, b) => {
    const expected = xids.every((xid) => !ended(b, xid) || ended(a, xid))
    assert.equal(contains(read(a), read(b)), expected, `${a} contains ${b}`)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 3_000 }))
})

t.test("containing is reflexive, transitive, and both ways only for the same", async (t) => {
  const property = fc.property(snapshot, snapshot, snapshot, (a, b, c) => {
    assert.ok(contains(read(a), read(a)))
    if (contains(read(a), read(b)) && contains(read(b), read(c))) assert.ok(contains(read(a), read(c)))
    if (contains(read(a), read(b)) && contains(read(b), read(a))) assert.equal(a, b)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 3_000 }))
})

t.test("a union holds what has ended in either, an intersection what has ended in both", async (t) => {
  const xids = Array.from({ length: TOP + 1 }, (_, xid) => xid)
  const property = fc.property(snapshot, snapshot, (a, b) => {
    const [either, both] = [union(read(a), read(b)), intersection(read(a), read(b))]
    for (const xid of xids) {
      assert.equal(visible(read(a), BigInt(xid)), ended(a, xid), `${xid} in ${a}`)
      assert.equal(visible(either, BigInt(xid)), ended(a, xid) || ended(b, xid), `${xid} in ${a} or ${b}`)
      assert.equal(visible(both, BigInt(xid)), ended(a, xid) && ended(b, xid), `${xid} in ${a} and ${b}`)
    }
    for (const { text } of [either, both]) assert.equal(read(text).text, text, "PostgreSQL reads it")
    assert.ok(contains(either, read(a)) && contains(either, read(b)))
    assert.ok(contains(read(a), both) && contains(read(b), both))
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 5_000 }))
})

t.test("xids beyond what a double holds stay apart", async (t) => {
  const first = read("9007199254740992:9007199254740993:")
  const second = read("9007199254740992:9007199254740993:9007199254740992")
  t.ok(contains(first, second))
  t.notOk(contains(second, first))
  t.equal(read("18446744073709551615:18446744073709551615:").xmax, 18446744073709551615n)
})

t.test("what PostgreSQL writes is read and written back as it was", async (t) => {
  const xid = fc.bigInt({ min: 1n, max: 2n ** 63n })
  const any = fc.tuple(xid, fc.uniqueArray(fc.bigInt({ min: 0n, max: 1_000n }))).map(([xmin, offsets]) => {
    const inFlight = offsets.sort((a, b) => Number(a - b)).map((offset) => xmin + offset)
    const xmax = xmin + 1_001n
    return { xmin: inFlight[0] ?? xmax, xmax, inFlight }
  })
  const lineage = fc.string({
    unit: fc.constantFrom(..."0123456789abcdef".split("")),
    minLength: 12,
    maxLength: 12,
  })
  const property = fc.property(any, lineage, ({ xmin, xmax, inFlight }, id) => {
    const text = `${xmin}:${xmax}:${inFlight.join(",")}`
    assert.deepEqual(parseSnapshot(text), { xmin, xmax, inFlight: new Set(inFlight), text })
    const cursor = parseCursor(`${id}:${text}`)
    assert.equal(cursor?.lineage, id)
    assert.equal(cursor && cursorText(cursor), `${id}:${text}`)
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test("an xmin that somebody has made up is that of the true snapshot", async (t) => {
  for (const [text, meant] of [
    ["1:1000:", "1000:1000:"],
    ["1:1000:900,950", "900:1000:900,950"],
    ["0001:01000:0900", "900:1000:900"],
  ] as const)
    t.same(parseSnapshot(text), parseSnapshot(meant), text)
})

t.test("what is no snapshot is refused", async (t) => {
  for (const text of [
    "",
    "1:2",
    "1:2:3:",
    "2:1:",
    "1:2:2",
    "1:2:0",
    "1:9:4,3",
    "1:9:3,3",
    "0:9:",
    "1:5:2,",
    "1:5:,2",
    "1:5:2,,3",
    "1:5:2, 3",
    " 1:2:",
    "1:2:\n",
    "-1:2:",
    "1:+2:",
    "1e1:20:",
    "0x1:2:",
    "１:２:",
    `${"9".repeat(21)}:${"9".repeat(21)}:`,
  ])
    t.equal(parseSnapshot(text), undefined, JSON.stringify(text))
  for (const text of [
    "",
    ":",
    "1:2:",
    "a:",
    "a:x",
    "A:1:2:",
    "a b:1:2:",
    "a:1:2:\n",
    `${"a".repeat(33)}:1:2:`,
    "a::1:2:",
  ])
    t.equal(parseCursor(text), undefined, JSON.stringify(text))
})

t.test(
  "whatever a client sends, nothing is thrown, and what is taken is written back as the true position",
  async (t) => {
    const soup = fc.string({ unit: fc.constantFrom(..."0123456789:,-ax \n".split("")) })
    const property = fc.property(fc.oneof(fc.string(), soup), (text) => {
      const cursor = parseCursor(text)
      if (cursor !== undefined) assert.deepEqual(parseCursor(cursorText(cursor)), cursor)
      const parsed = parseSnapshot(text)
      if (parsed === undefined) return
      assert.deepEqual(parseSnapshot(parsed.text), parsed)
      // As PostgreSQL writes it: xmin is the first in flight, or xmax.
      assert.equal(parsed.text, `${parsed.xmin}:${parsed.xmax}:${[...parsed.inFlight].join(",")}`)
    })
    t.doesNotThrow(() => fc.assert(property, { numRuns: 5_000 }))
  },
)

t.test("a cursor as long as a frame is refused or read at once", async (t) => {
  const long = `a:1:${10 ** 6}:${Array.from({ length: 20_000 }, (_, index) => index + 1).join(",")}`
  for (const text of [long, `${long},`, `a:${"1".repeat(60_000)}`, `a:1:2:${",".repeat(60_000)}`]) {
    const times = timesAsMuch(
      () => parseCursor(text),
      () => text.split(""),
    )
    t.ok(times < 100, `${times} times what it takes to go through its letters`)
  }
})
