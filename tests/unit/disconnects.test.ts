/** Disconnects: what comes together is one, and what is kept is bounded, of one process and of several. */

import t from "tap"
import { createDisconnects, sumOfDisconnects } from "../../relay/telemetry/disconnects.ts"

const START = Date.parse("2026-11-25T20:00:00Z")

/** Disconnects on a clock that the test sets, in seconds since the start. */
function onClock() {
  let seconds = 0
  const disconnects = createDisconnects(() => START + seconds * 1_000)
  return {
    disconnects,
    at(to: number) {
      seconds = to
      return disconnects
    },
  }
}

/** The last as "reason times from-to", in seconds since the start. */
const shown = ({ last }: Pick<ReturnType<typeof sumOfDisconnects>, "last">): string[] =>
  last.map(({ reason, times, first_at, last_at }) => {
    const second = (at: string) => (Date.parse(at) - START) / 1_000
    return `${reason} ${times} ${second(first_at)}-${second(last_at)}`
  })

t.test("those of one reason within ten seconds are one, and the next begin anew", async (t) => {
  const { disconnects, at } = onClock()
  at(0).closed(4000)
  at(3).closed(4000)
  at(4).closed(4005)
  at(9).closed(4000)
  at(10).closed(4000)
  at(12).closed(4005)
  t.same(shown(disconnects.report()), ["token_expired 2 4-12", "drain 1 10-10", "drain 3 0-9"])
  t.same(
    disconnects.report().totals.map(({ code, times }) => [code, times]),
    [
      [4000, 4],
      [4005, 2],
    ],
  )
})

t.test("a clock that is set back makes none of them last", async (t) => {
  const { disconnects, at } = onClock()
  at(3_600).closed(4000)
  at(0).closed(4000)
  t.same(shown(disconnects.report()), ["drain 1 3600-3600", "drain 1 0-0"])
})

t.test("a flood pushes out nothing for as long as it is one, and little afterwards", async (t) => {
  const { disconnects, at } = onClock()
  at(0).closed(4005)
  for (let second = 0; second < 400; second += 0.5) at(second).refused(429, "upgrade_rate_per_address")
  const { last } = disconnects.report()
  t.equal(last.length, 41)
  t.match(last.at(-1), { reason: "token_expired" })
  for (let second = 400; second < 2_000; second += 0.5) at(second).refused(429, "upgrade_rate_per_address")
  t.equal(disconnects.report().last.length, 50)
  t.same(
    disconnects.report().totals.map(({ reason, times }) => [reason, times]),
    [
      ["token_expired", 1],
      ["upgrade_rate_per_address", 4_000],
    ],
    "the totals know all of it",
  )
})

t.test("a report that was given does not change", async (t) => {
  const { disconnects } = onClock()
  disconnects.ended(1006)
  const before = disconnects.report()
  disconnects.ended(1006)
  t.equal(before.last[0]?.times, 1)
})

t.test("what several processes have at about the same time is one", async (t) => {
  const [first, second] = [onClock(), onClock()]
  first.at(0).closed(4000)
  first.at(2).closed(4000)
  second.at(1).closed(4000)
  second.at(5).closed(4000)
  second.at(6).ended(1000)
  first.at(30).closed(4000)
  const reports = [first.disconnects.report(), second.disconnects.report()]
  t.same(shown(sumOfDisconnects(reports)), ["drain 1 30-30", "done 1 6-6", "drain 4 0-5"])
  t.same(shown(sumOfDisconnects(reports.toReversed())), ["drain 1 30-30", "done 1 6-6", "drain 4 0-5"])
  t.same(
    sumOfDisconnects(reports).totals.map(({ reason, times }) => [reason, times]),
    [
      ["drain", 5],
      ["done", 1],
    ],
  )
  t.same(shown(first.disconnects.report()), ["drain 1 30-30", "drain 2 0-2"], "theirs are as they were")
  t.same(sumOfDisconnects([]), { totals: [], last: [] })
})
