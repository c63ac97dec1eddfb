/** Token buckets: what they let through at once and in the long run, and what they remember. */

import v8 from "node:v8"
import fc from "fast-check"
import t from "tap"
import { Rate, TokenBuckets } from "../../relay/lib/token-bucket.ts"

/** How many of those that come at these times are let through. */
function through(perSecond: number, times: Iterable<number>): number {
  const buckets = new TokenBuckets(new Rate(perSecond))
  let count = 0
  for (const now of times) if (buckets.take("key", now)) count++
  return count
}

function* every(ms: number, forMs: number, from = 0): Generator<number> {
  for (let n = 0; n * ms < forMs; n++) yield from + n * ms
}

t.test("at once as many as in five seconds, and one at least", async (t) => {
  const cases: Array<[perSecond: number, atOnce: number]> = [
    [10, 50],
    [1, 5],
    [3, 15],
    [7, 35],
    [0.5, 2],
    [0.1, 1],
    [1_000, 5_000],
  ]
  for (const [perSecond, atOnce] of cases)
    for (const at of [0, 1_234.567, 1e9 + 0.1])
      t.equal(through(perSecond, Array(2 * atOnce + 1).fill(at)), atOnce, `${perSecond} a second at ${at}`)
})

t.test("in the long run the rate, however fast they come", async (t) => {
  t.equal(through(10, every(100, 600_000)), 6_000, "at the rate all of them")
  t.equal(through(3, every(1_000 / 3, 600_000)), 1_800, "where it is no whole number of milliseconds")
  for (const ms of [1, 7, 50, 90]) {
    const count = through(10, every(ms, 600_000))
    t.ok(count >= 6_040 && count <= 6_060, `${count} of those that come every ${ms} ms`)
  }
})

t.test("it says how long to wait, and after that there is one", async (t) => {
  const buckets = new TokenBuckets(new Rate(4))
  for (let n = 0; n < 20; n++) t.ok(buckets.take("key", 1_000))
  const waitMs = buckets.waitMs("key", 1_000)
  t.ok(Math.abs(waitMs - 250) < 1, `${waitMs}`)
  t.notOk(buckets.take("key", 1_000 + waitMs - 1))
  t.ok(buckets.take("key", 1_000 + waitMs))
  t.notOk(buckets.take("key", 1_000 + waitMs))
  t.equal(buckets.waitMs("other", 1_000), 0)
})

t.test("a rate of 0 is none", async (t) => {
  t.equal(through(0, Array(100_000).fill(5)), 100_000)
  t.equal(through(0, every(0.001, 100)), 100_000)
})

t.test("what is forgotten makes no difference", async (t) => {
  const steps = fc.array(
    fc.record({ key: fc.constantFrom("a", "b", "c"), waitMs: fc.integer({ min: 0, max: 4_000 }) }),
    { maxLength: 200 },
  )
  const property = fc.property(fc.constantFrom(0.1, 0.5, 1, 3), steps, (perSecond, visits) => {
    const rate = new Rate(perSecond)
    const buckets = new TokenBuckets(rate)
    const wholeAt = new Map<string, number>()
    let now = 0
    for (const { key, waitMs } of visits) {
      now += waitMs
      const next = rate.take(wholeAt.get(key) ?? 0, now)
      if (next !== undefined) wholeAt.set(key, next)
      if (buckets.take(key, now) !== (next !== undefined)) return false
    }
    return true
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }))
})

t.test("a bucket is forgotten when it is whole, and not a moment before", async (t) => {
  const buckets = new TokenBuckets(new Rate(0.1))
  const visits: Array<[key: string, now: number]> = [
    ["other", 10_000],
    ["late", 10_001],
    ["late", 19_991],
    ["other", 20_000],
    ["other", 30_000],
    ["late", 30_000],
  ]
  for (const [key, now] of visits) t.ok(buckets.take(key, now), `${key} at ${now}`)
  t.notOk(buckets.take("late", 39_990), "it was to be whole at 40,001 only")
  t.ok(buckets.take("late", 39_991))
})

t.test("a million keys at once are not all remembered", async (t) => {
  const { queryObjects } = v8 as typeof v8 & {
    queryObjects(kind: unknown, options: { format: "count" }): number
  }
  const heap = () => {
    queryObjects(TokenBuckets, { format: "count" }) // collects
    return process.memoryUsage().heapUsed
  }
  const buckets = new TokenBuckets(new Rate(1))
  const before = heap()
  for (let n = 0; n < 1_000_000; n++) buckets.take(`2001:db8:${n.toString(16)}::/64`, n / 1_000)
  const bytes = heap() - before
  t.ok(bytes < 30e6, `${bytes} bytes`)
  for (let n = 0; n < 5; n++) buckets.take("2001:db8:f423f::/64", 1_000)
  t.notOk(buckets.take("2001:db8:f423f::/64", 1_000), "the latest are remembered")
})
