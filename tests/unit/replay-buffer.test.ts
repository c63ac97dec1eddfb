/** The replay buffer: what it says it covers is all there. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import type { Change } from "../../relay/change/change.ts"
import { contains, parseSnapshot, type Snapshot, visible } from "../../relay/change/cursor.ts"
import { createReplayBuffer, type ReplayBuffer, sizeOf } from "../../relay/replay/replay-buffer.ts"

const at = (xmax: number): Snapshot => parseSnapshot(`${xmax}:${xmax}:`) ?? assert.fail()
const cursor = (xmax: number) => ({ lineage: "l", snapshot: at(xmax) })

const message = (xid: number): Change => ({
  kind: "message",
  op: "message",
  id: String(xid),
  xid: String(xid),
  at: "",
  channel: "election_updates",
  payload: "1",
})
const ONE = sizeOf([message(1)])

/** What a walk from the first part brings to somebody at a position. */
function missed(buffer: ReplayBuffer, since: Snapshot): number[] {
  const xids: number[] = []
  for (let index = buffer.first(); index < buffer.end(); index++) {
    for (const { xid } of buffer.at(index)?.changes ?? [])
      if (!visible(since, BigInt(xid))) xids.push(Number(xid))
  }
  return xids
}

t.test("it covers nothing before it began, and everything from there on", async (t) => {
  const buffer = createReplayBuffer(10 * ONE)
  t.notOk(buffer.covers(at(1)))
  buffer.begin(at(5))
  t.notOk(buffer.covers(at(4)))
  t.ok(buffer.covers(at(5)))
  buffer.append({ changes: [message(5)], cursor: cursor(6), first: true, final: true })
  t.ok(buffer.covers(at(5)))
  t.same(missed(buffer, at(5)), [5])
  t.same(missed(buffer, at(6)), [])
  buffer.begin(at(9))
  t.notOk(buffer.covers(at(6)))
  t.same(missed(buffer, at(9)), [])
})

t.test("an empty batch leaves the beginning where it is: nothing was missed", async (t) => {
  const buffer = createReplayBuffer(10 * ONE)
  buffer.begin(at(5))
  buffer.append({ changes: [], cursor: cursor(7), first: true, final: true })
  t.ok(buffer.covers(at(5)))
  t.same(missed(buffer, at(5)), [])
  buffer.append({ changes: [message(7)], cursor: cursor(8), first: true, final: true })
  buffer.append({ changes: [], cursor: cursor(9), first: true, final: true })
  for (const position of [5, 6, 7]) t.same(missed(buffer, at(position)), [7])
  t.same(missed(buffer, at(8)), [])
})

t.test("what was read of the time before is taken only without a gap and within the limit", async (t) => {
  const buffer = createReplayBuffer(3 * ONE)
  buffer.begin(at(5))
  buffer.prepend(at(2), [[message(2)]], cursor(4))
  t.notOk(buffer.covers(at(2)), "between 4 and 5 there would be a gap")
  buffer.prepend(
    at(1),
    [
      [message(1), message(2)],
      [message(3), message(4)],
    ],
    cursor(5),
  )
  t.notOk(buffer.covers(at(1)), "too much")
  buffer.prepend(at(3), [[message(3), message(5)]], cursor(6))
  t.ok(buffer.covers(at(3)))
  t.same(missed(buffer, at(3)), [3, 5])
  t.equal(buffer.room(), ONE)
})

t.test("a batch that was given up claims nothing, and comes again", async (t) => {
  const buffer = createReplayBuffer(10 * ONE)
  buffer.begin(at(5))
  buffer.append({ changes: [message(5)], cursor: cursor(6), first: true, final: true })
  buffer.append({ changes: [message(6)], cursor: cursor(8), first: true, final: false })
  buffer.abandon(cursor(6))
  t.equal(buffer.room(), 9 * ONE)
  t.match(buffer.at(buffer.end() - 1), { changes: [], cursor: cursor(6), final: true })
  buffer.append({ changes: [message(6), message(7)], cursor: cursor(8), first: true, final: true })
  t.same(missed(buffer, at(5)), [5, 6, 7])
  t.ok(buffer.covers(at(5)))
})

type Step =
  | { kind: "batch"; parts: number[] }
  | { kind: "abandoned"; parts: number[] }
  | { kind: "prepend"; back: number; ahead: number }
  | { kind: "walk" }

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant("batch" as const),
    parts: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 3 }),
  }),
  fc.record({
    kind: fc.constant("abandoned" as const),
    parts: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 3 }),
  }),
  fc.record({ kind: fc.constant("prepend" as const), back: fc.nat(12), ahead: fc.nat(2) }),
  fc.constant({ kind: "walk" as const }),
)

t.test("whatever happens, who is covered misses nothing, and an index keeps its meaning", async (t) => {
  const property = fc.property(
    fc.array(step, { maxLength: 30 }),
    fc.integer({ min: 1, max: 12 }),
    (steps, limit) => {
      const buffer = createReplayBuffer(limit * ONE)
      let next = 20
      buffer.begin(at(next))
      const meaning = new Map<number, readonly Change[]>()
      for (const one of steps) {
        if (one.kind === "batch") {
          const sizes = one.parts
          const after = next + sizes.reduce((sum, size) => sum + size, 0)
          for (const [i, size] of sizes.entries()) {
            const changes = Array.from({ length: size }, () => message(next++))
            buffer.append({ changes, cursor: cursor(after), first: i === 0, final: i === sizes.length - 1 })
          }
        } else if (one.kind === "abandoned") {
          let xid = next
          const after = next + one.parts.reduce((sum, size) => sum + size, 1)
          for (const [i, size] of one.parts.entries()) {
            const changes = Array.from({ length: size }, () => message(xid++))
            buffer.append({ changes, cursor: cursor(after), first: i === 0, final: false })
          }
          buffer.abandon(cursor(next))
        } else if (one.kind === "prepend") {
          const [since, until] = [Math.max(1, next - one.back), next]
          buffer.prepend(
            at(since),
            [Array.from({ length: until - since }, (_, i) => message(since + i))],
            cursor(until),
          )
        }
        for (let xmax = 1; xmax <= next; xmax++) {
          if (!buffer.covers(at(xmax))) continue
          const found = new Set(missed(buffer, at(xmax)))
          for (let xid = xmax; xid < next; xid++) assert.ok(found.has(xid), `${xid} since ${xmax}`)
        }
        for (let index = buffer.first(); index < buffer.end(); index++)
          assert.ok(
            contains(at(next), buffer.at(index)?.cursor.snapshot ?? at(1)),
            "claims no more than came",
          )
        for (let index = buffer.first(); index < buffer.end(); index++) {
          const changes = buffer.at(index)?.changes
          if (changes?.length === 0) continue
          if (changes !== undefined) assert.equal(meaning.get(index) ?? changes, changes)
          if (changes !== undefined) meaning.set(index, changes)
        }
        assert.ok(buffer.room() >= 0)
        assert.equal(buffer.at(buffer.first() - 1), null)
        assert.equal(buffer.at(buffer.end()), undefined)
      }
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})
