/** The chores: what is done in each round, how often, what is told, and that one that fails holds up no other. */

import t, { type Test } from "tap"
import type { TrackedTable } from "../../relay/feed/changelog.ts"
import { createChores } from "../../relay/feed/chores.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { createTestClock, settled } from "../helpers/clock.ts"

const WATCH_MS = 5_000
const ROUND_MS = 30_000

const table = (name: string, problem: string | null = null): TrackedTable => ({
  name,
  type: `${name}_update`,
  level: "row",
  problem,
  not_captured: [],
})

function createWorld(t: Test) {
  const clock = createTestClock()
  const done: string[] = []
  const lines: Array<Record<string, unknown>> = []
  const database = {
    tables: [table("vote"), table("sale")],
    rotation: "not_due" as "done" | "not_due" | "refused",
    slow: 0,
    changed: [] as string[],
    oddities: { paused: false, strays: [] as string[] },
    /** What may be mended of it. */
    mendable: new Set<string>(),
    broken: new Set<string>(),
  }
  const metrics = createMetrics()
  const noted = (name: string) => {
    done.push(name)
    if (database.broken.has(name)) throw new Error(`no ${name}`)
  }
  const chores = createChores({
    changelog: {
      async rotate() {
        noted("rotate")
        return database.rotation
      },
      async renew() {
        noted("renew")
        return database.slow
      },
      async watch() {
        noted("watch")
        return database.changed.splice(0)
      },
      async mend(name) {
        noted(`mend ${name}`)
        if (!database.mendable.has(name)) return null
        const found = database.tables.find((one) => one.name === name)?.problem ?? null
        database.tables = database.tables.map((one) => (one.name === name ? table(name) : one))
        return found
      },
      async tracked() {
        noted("tracked")
        return database.tables
      },
      async oddities() {
        noted("oddities")
        return database.oddities
      },
      async size() {
        noted("size")
        return 4_711
      },
    },
    settings: { RETENTION_HOURS: 24, RETENTION_MB: 1 },
    log: createLog(
      { LOG_LEVEL: "info", LOG_FORMAT: "json" },
      { write: (line) => void lines.push(JSON.parse(line)) },
    ),
    metrics,
    clock,
  })
  t.teardown(() => chores.stop())
  const metric = async (name: string) =>
    Number(new RegExp(`^${name} (.+)$`, "m").exec(await metrics.registry.metrics())?.[1])
  return { clock, done, lines, database, chores, metric }
}

const ALL = ["rotate", "renew", "watch", "tracked", "oddities", "size"]

t.test("all is done at once and every 30 s, and the trees are watched between", async (t) => {
  const { clock, done, chores, metric } = createWorld(t)
  chores.start()
  await settled()
  t.same(done.splice(0), ALL)
  t.equal(await metric("relay_log_bytes"), 4_711)
  t.equal(await metric("relay_log_limit_bytes"), 1_048_576)
  await clock.pass(ROUND_MS - 1)
  t.same(done.splice(0), Array(5).fill("watch"))
  await clock.pass(1)
  t.same(done.splice(0), ALL)
})

t.test("one that fails is told, and holds up neither the others nor its next time", async (t) => {
  for (const [chore, broken] of [
    ["rotate", "rotate"],
    ["renew", "renew"],
    ["watch", "watch"],
    ["tables", "tracked"],
    ["size", "size"],
  ] as const) {
    const { clock, done, lines, database, chores } = createWorld(t)
    database.broken.add(broken)
    chores.start()
    await settled()
    t.same(
      done.splice(0),
      ALL.filter((name) => broken !== "tracked" || name !== "oddities"),
      chore,
    )
    t.match(lines, [{ event: "chores_failed", chore, error: `no ${broken}` }])
    t.match(chores.problems(), [{ text: new RegExp(` cannot be .+: no ${broken}$`), since: /Z$/ }])
    await clock.pass(WATCH_MS)
    t.same([...new Set(done)].sort(), [...new Set(["watch", broken])].sort(), "it is tried again soon")
    t.equal(lines.length, 1, "and said once")
    database.broken.clear()
    await clock.pass(WATCH_MS)
    t.same(chores.problems(), [], "and no more once it does not fail")
    await chores.stop()
  }
})

t.test("a problem is told once, again when it is another, and counted", async (t) => {
  const { clock, lines, database, chores, metric } = createWorld(t)
  database.tables = [table("vote", "first"), table("sale")]
  chores.start()
  await clock.pass(ROUND_MS)
  t.match(lines, [{ event: "table_problem", table: "vote", problem: "first" }])
  t.equal(await metric("relay_tables_with_problems"), 1)
  database.tables = [table("vote", "second"), table("sale", "first")]
  await clock.pass(ROUND_MS)
  t.match(
    lines.slice(1).map((line) => [line.table, line.problem]),
    [
      ["vote", "second"],
      ["sale", "first"],
    ],
  )
  t.equal(await metric("relay_tables_with_problems"), 2)
  database.tables = [table("vote")]
  t.same(await chores.tables(), [table("vote")], "looked at anew for whoever asks")
  t.equal(await metric("relay_tables_with_problems"), 0)
  database.broken.add("tracked")
  t.same(await chores.tables(), [table("vote")], "as they were known")
})

t.test("a problem stands from when it was seen until it is gone", async (t) => {
  const { database, chores } = createWorld(t)
  const texts = async () => {
    await chores.tables()
    return chores.problems().map(({ text }) => text)
  }
  t.same(await texts(), [])
  database.tables = [table("vote", "a trigger is missing: do this"), table("sale")]
  database.oddities = { paused: false, strays: ["public.old"] }
  t.match(await texts(), [
    "vote: a trigger is missing: do this",
    /^public.old: it has triggers of a tracking that is gone: .+ track /,
  ])
  const [{ since } = { since: "" }] = chores.problems()
  database.tables = [table("vote", "two are missing"), table("sale")]
  await texts()
  t.match(chores.problems()[0], { text: "vote: two are missing", since })
  database.oddities.paused = true
  t.match(await texts(), [/^the capture is paused and nothing is sent: select relay.resume\(\)$/])
  database.oddities = { paused: false, strays: [] }
  database.tables = []
  t.match(await texts(), [/^no table is tracked/])
})

t.test("what may be mended is mended, told, and looked at again", async (t) => {
  const { clock, done, lines, database, chores } = createWorld(t)
  database.tables = [table("vote", "a trigger is missing"), table("sale", "dropped"), table("other")]
  database.mendable.add("vote")
  chores.start()
  await settled()
  t.same(
    done.filter((name) => name !== "oddities"),
    ["rotate", "renew", "watch", "tracked", "mend vote", "mend sale", "tracked", "size"],
  )
  t.match(
    lines.map(({ event, table: name, problem }) => [event, name, problem]),
    [
      ["table_problem", "vote", "a trigger is missing"],
      ["table_problem", "sale", "dropped"],
      ["table_mended", "vote", "a trigger is missing"],
    ],
  )
  done.splice(0)
  await clock.pass(ROUND_MS)
  t.same(
    done.filter((name) => name.startsWith("mend")),
    ["mend sale"],
    "what it may not is tried again",
  )
  t.equal(lines.length, 3)
})

t.test("a tree that has changed is told, and mended without waiting for the next round", async (t) => {
  const { clock, done, lines, database, chores } = createWorld(t)
  chores.start()
  await settled()
  done.splice(0)
  database.changed = ["sale"]
  database.tables = [table("sale", "a trigger is missing")]
  database.mendable.add("sale")
  await clock.pass(WATCH_MS)
  t.same(
    done.filter((name) => name !== "oddities"),
    ["watch", "tracked", "mend sale", "tracked"],
  )
  t.match(
    lines.map(({ event, table: name }) => [event, name]),
    [
      ["table_tree_changed", "sale"],
      ["table_problem", "sale"],
      ["table_mended", "sale"],
    ],
  )
})

t.test("rotations and code that was made anew are told", async (t) => {
  const { clock, lines, database, chores, metric } = createWorld(t)
  database.rotation = "refused"
  database.slow = 3
  chores.start()
  await settled()
  t.match(lines, [
    { event: "rotation", result: "refused" },
    { event: "capture_renewed", count: 3 },
  ])
  t.equal(await metric('relay_rotations_total\\{result="refused"\\}'), 1)
  database.rotation = "not_due"
  database.slow = 0
  await clock.pass(ROUND_MS)
  t.equal(lines.length, 2)
})

t.test("once stopped nothing more is done", async (t) => {
  const { clock, done, chores } = createWorld(t)
  chores.start()
  await settled()
  done.splice(0)
  await chores.stop()
  await clock.pass(2 * ROUND_MS)
  t.same(done, [])
  t.same(clock.waits(), [])
})
