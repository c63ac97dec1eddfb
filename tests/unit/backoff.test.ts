/** Delays between attempts. */

import fc from "fast-check"
import t from "tap"
import { backoff } from "../../relay/lib/backoff.ts"

t.test("the delay doubles from 100 ms to 10 s, spread over its upper half", async (t) => {
  const property = fc.property(fc.nat({ max: 2_000 }), (attempt) => {
    const ceiling = Math.min(100 * 2 ** attempt, 10_000)
    const delay = backoff(attempt)
    return delay >= ceiling / 2 && delay <= ceiling
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})

t.test("relays that fail together do not come back together", async (t) => {
  const delays = Array.from({ length: 200 }, () => backoff(5))
  t.ok(new Set(delays.map(Math.round)).size > 100)
  t.ok(Math.max(...delays) - Math.min(...delays) > 800, "of 1,600 ms")
})
