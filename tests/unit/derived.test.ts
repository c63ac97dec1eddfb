/** When functions of derived messages run: at most so often, never twice at once, and not for nothing. */

import t from "tap"
import type { Change } from "../../relay/change/change.ts"
import type { Definition } from "../../relay/derived/definition.ts"
import { createDerived } from "../../relay/derived/derived.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { readChange } from "../helpers/change.ts"
import { createTestClock, settled } from "../helpers/clock.ts"
import { createHolds } from "../helpers/holds.ts"

const MIN_MS = 1_000
const MAX_MS = 60_000
/** How often it looks for definitions. */
const LOOK_MS = 5_000

const define = (type: string, tables: string[], fields: Partial<Definition> = {}): Definition => ({
  type,
  channel: "dashboard",
  action: null,
  function: `public.${type}`,
  tables: tables.map((table) => `public.${table}`),
  minMs: MIN_MS,
  maxMs: MAX_MS,
  definedAt: "today",
  ...fields,
})

const changeOf = (table: string): Change =>
  readChange({
    seq: "1",
    xid: "5",
    at: "2026-11-03 20:00:00+00",
    table: `public.${table}`,
    op: "insert",
    type: "voting_update",
    old: null,
    new: `{"id":1}`,
    meta: "{}",
  })

function createWorld(...definitions: Definition[]) {
  const clock = createTestClock()
  const holds = createHolds()
  const metrics = createMetrics()
  const warnings: string[] = []
  const shown: string[] = []
  const defined = [...definitions]
  let failure: string | undefined
  let count = 0
  const derived = createDerived({
    runner: {
      definitions: async () => [...defined],
      async run({ type }) {
        const data = String(++count)
        await holds.pass(type)
        if (failure !== undefined) throw new Error(failure)
        return [
          { id: null, data },
          { id: "none", data: null },
        ]
      },
      close: () => holds.pass("close"),
    },
    showDerived: ({ name, values }) =>
      shown.push([name, ...values.map(({ channel, data }) => `${channel}=${data}`)].join(" ")),
    log: createLog(
      { LOG_LEVEL: "warn", LOG_FORMAT: "json" },
      { write: (line) => void warnings.push(JSON.parse(line).error) },
    ),
    metrics,
    clock,
  })
  t.teardown(() => derived.stop())
  const change = (...tables: string[]) => derived.notice(tables.map(changeOf))
  const fail = (why: string | undefined) => {
    failure = why
  }
  const runs = (type: string) => holds.calls.filter((call) => call === type).length
  return { clock, holds, metrics, warnings, shown, defined, derived, change, fail, runs }
}

/** The same, each function having run once and rested. */
async function createRestedWorld(...definitions: Definition[]) {
  const world = createWorld(...definitions)
  world.derived.start()
  await world.clock.pass(MIN_MS)
  world.shown.length = 0
  return world
}

t.test(
  "it is computed at once, and then when its tables have changed, for all changes together",
  async (t) => {
    const { clock, derived, change, shown, runs } = createWorld(define("totals", ["vote"]))
    derived.start()
    await settled()
    t.same(shown, ["totals dashboard dashboard=1"])
    change("vote")
    change("vote", "vote")
    await clock.pass(MIN_MS - 1)
    t.equal(runs("totals"), 1, "not before the interval is over")
    await clock.pass(1)
    t.same(shown, ["totals dashboard dashboard=1", "totals dashboard dashboard=2"])
    await clock.pass(MIN_MS * 5)
    t.equal(runs("totals"), 2, "and not for nothing")
    change("vote")
    await settled()
    t.equal(runs("totals"), 3, "at once, since it has rested")
  },
)

t.test("changes of other tables concern it not", async (t) => {
  const { change, runs } = await createRestedWorld(
    define("totals", ["vote"]),
    define("people", ["voter", "attendance"]),
  )
  change("voter")
  await settled()
  t.same([runs("totals"), runs("people")], [1, 2])
  change("committee")
  await settled()
  t.same([runs("totals"), runs("people")], [1, 2])
})

t.test("a change in the middle of a run makes it run again, and never twice at once", async (t) => {
  const { clock, holds, change, runs, shown } = await createRestedWorld(define("totals", ["vote"]))
  const run = holds.next("totals")
  change("vote")
  await run.reached
  change("vote")
  await clock.pass(MIN_MS * 3)
  t.equal(runs("totals"), 2)
  run.release()
  await settled()
  t.equal(runs("totals"), 2)
  await clock.pass(MIN_MS * 9 - 1)
  t.equal(runs("totals"), 2)
  await clock.pass(1)
  t.equal(runs("totals"), 3, "after three times what it took")
  t.same(shown, ["totals dashboard dashboard=2", "totals dashboard dashboard=3"])
})

t.test("it runs now and then though nothing has changed", async (t) => {
  const { clock, runs } = await createRestedWorld(define("totals", ["vote"]))
  await clock.pass(MAX_MS - MIN_MS - 1)
  t.equal(runs("totals"), 1)
  await clock.pass(1)
  t.equal(runs("totals"), 2)
})

t.test("when changes may have been missed, everything runs", async (t) => {
  const { derived, runs } = await createRestedWorld(define("totals", ["vote"]), define("people", ["voter"]))
  derived.recheck()
  await settled()
  t.same([runs("totals"), runs("people")], [2, 2])
})

t.test("what fails is tried again though nothing changes, and one error is logged once", async (t) => {
  const { clock, derived, change, fail, runs, shown, warnings } = await createRestedWorld(
    define("totals", ["vote"]),
  )
  fail("no such column")
  change("vote")
  await clock.pass(MIN_MS * 3)
  t.equal(runs("totals"), 5)
  t.same(warnings, ["no such column"])
  t.same(shown, [], "what stands stays")
  t.match(derived.report(), [{ values: 1, error: "no such column", computed_seconds_ago: 4 }])
  fail("something else")
  await clock.pass(MIN_MS)
  t.same(warnings, ["no such column", "something else"])
  fail(undefined)
  await clock.pass(MIN_MS * 4)
  t.equal(shown.length, 1, "and then it rests")
  t.match(derived.report(), [{ values: 1, error: null }])
})

t.test("what fails for long is tried less and less often", async (t) => {
  const { clock, change, fail, runs } = await createRestedWorld(define("totals", ["vote"], { minMs: 0 }))
  fail("away")
  change("vote")
  await clock.pass(100_000)
  const tried = runs("totals")
  await clock.pass(100_000)
  t.ok(runs("totals") - tried <= 20, "each 5 to 10 s")
  t.ok(runs("totals") - tried >= 10)
})

t.test(
  "a definition that is gone: its values are withdrawn, and a run that was on its way shows none",
  async (t) => {
    const { clock, holds, defined, derived, change, shown } = await createRestedWorld(
      define("totals", ["vote"]),
    )
    const run = holds.next("totals")
    change("vote")
    await run.reached
    defined.length = 0
    await clock.pass(LOOK_MS)
    t.same(shown, ["totals dashboard"])
    t.same(derived.report(), [])
    run.release()
    await clock.pass(MAX_MS)
    t.same(shown, ["totals dashboard"])
  },
)

t.test("a definition made anew takes the place of the old one, whose values stand until then", async (t) => {
  const { clock, holds, defined, change, shown } = await createRestedWorld(define("totals", ["vote"]))
  const old = holds.next("totals")
  change("vote")
  await old.reached
  const first = holds.next("totals")
  defined[0] = define("totals", ["guarantee"], { definedAt: "now" })
  await clock.pass(LOOK_MS)
  await first.reached
  t.same(shown, [])
  old.release()
  await settled()
  t.same(shown, [])
  first.release()
  await clock.pass(LOOK_MS * 3)
  t.same(shown, ["totals dashboard dashboard=3"])
  change("vote")
  await settled()
  t.same(shown, ["totals dashboard dashboard=3"], "another table's")
})

t.test("a stop in the middle of a run waits for it, shows nothing, and leaves nothing open", async (t) => {
  const { clock, holds, derived, change, shown } = await createRestedWorld(define("totals", ["vote"]))
  const run = holds.next("totals")
  change("vote")
  await run.reached
  const stopped = derived.stop()
  await settled()
  t.notOk(holds.calls.includes("close"))
  run.release()
  await stopped
  t.same(holds.calls.slice(-2), ["totals", "close"])
  t.same(shown, [])
  t.same(clock.waits(), [])
})

t.test("a stop while all rest ends all pauses", async (t) => {
  const { clock, derived, runs } = await createRestedWorld(define("totals", ["vote"]))
  t.equal(clock.waits().length, 2, "for changes and for definitions")
  await derived.stop()
  t.same(clock.waits(), [])
  t.equal(runs("totals"), 1)
})
