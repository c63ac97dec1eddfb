/** Of several processes with keys of their own, the one that is worst off is told of. */

import fc from "fast-check"
import t from "tap"
import { type KeysReport, worstOf } from "../../relay/access/keys.ts"

const report = (known: number, age: number | null, error: string | null = null): KeysReport => ({
  source: "jwks",
  known,
  fetched_seconds_ago: age,
  error,
})

t.test("one without keys before one that cannot fetch them, before one whose keys are old", async (t) => {
  const byNeed = [report(0, null), report(1, 5, "away"), report(2, 900, "away"), report(2, 8), report(2, 1)]
  const property = fc.property(fc.shuffledSubarray(byNeed, { minLength: 1 }), (reports) => {
    const worst = byNeed.find((each) => reports.includes(each))
    return worstOf(reports) === worst
  })
  t.doesNotThrow(() => fc.assert(property))
  t.equal(worstOf([]), undefined)
})
