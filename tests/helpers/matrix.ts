/**
 * Faults, each against everything that speaks of one: readiness, the report, the doctor, a metric and its alert. What is
 * expected stands in a table of docs/OPERATIONS.md, the words in the test.
 */

import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import type { Test } from "tap"
import { parse } from "yaml"
import { z } from "zod"
import { doctor } from "../../cli/commands/doctor.ts"
import { readSettings } from "../../relay/config.ts"
import { type Database, database } from "./database.ts"
import { metricOf, SECRET, startRelay, type TestRelay, token } from "./relay.ts"
import { until } from "./wait.ts"

/** In each row that a test writes; no message may have it. */
const CONTENT = "hush-4711"

export interface Place {
  db: Database
  /** For what the owner of the database may not. */
  superuser(sql: string): Promise<unknown>
  relay: TestRelay
}

export interface Fault {
  /** As whom the relay runs; by default as the owner of the schema and the tables. */
  runsAs?(t: Test, db: Database): Promise<string>
  settings?: Record<string, string>
  /** Before the relay starts. */
  prepare?(place: Omit<Place, "relay">): Promise<unknown>
  bring(place: Place): Promise<unknown>
  /** What the report says; undefined where the relay has mended it before anybody can look. */
  problem: RegExp | undefined
  /** What the doctor says. */
  doctor: RegExp | undefined
  /** Labels of the metric. */
  labels?: string
  /** What the document says is to be done; undefined where nothing is. */
  mend?(place: Place): Promise<unknown>
}

interface Stated {
  what: string
  ready: boolean
  metric: string
  alert: string
}

const read = (path: string) => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8")

/** The table below a heading. */
function statedUnder(heading: string): Stated[] {
  const [, section = ""] =
    new RegExp(`^#### ${heading}\\n(.*?)(?=^#)`, "ms").exec(read("docs/OPERATIONS.md")) ?? []
  return [...section.matchAll(/^\| (.+?) \| (yes|no) \| `(\w+)` \| \[\w+\]\(#(\w+)\) \|/gm)].map(
    ([, what = "", ready = "", metric = "", alert = ""]) => ({ what, ready: ready === "yes", metric, alert }),
  )
}

const Rules = z.object({
  groups: z.array(z.object({ rules: z.array(z.object({ alert: z.string(), expr: z.string() })) })),
})
const alerts = new Map(
  Rules.parse(parse(read("ops/prometheus/alerts.yml")))
    .groups.flatMap(({ rules }) => rules)
    .map(({ alert, expr }) => [alert.toLowerCase(), expr]),
)

export const isReady = async ({ url }: TestRelay): Promise<boolean> => (await fetch(`${url}/health/ready`)).ok

/** What the doctor finds wrong, of the database and the relay. */
export async function failuresOf(databaseUrl: string, { url }: TestRelay): Promise<string[]> {
  let text = ""
  await doctor({
    settings: readSettings({ DATABASE_URL: databaseUrl, JWT_SECRET: SECRET }),
    relay: { url, token: token({ role: "admin" }) },
    longSeconds: 600,
    json: true,
    coloured: false,
    print: (line) => {
      text += `${line}\n`
    },
  })
  const { healthy, findings } = z
    .object({
      healthy: z.boolean(),
      findings: z.array(
        z.object({ of: z.string(), verdict: z.string(), text: z.string(), remedy: z.string().optional() }),
      ),
    })
    .parse(JSON.parse(text))
  const failures = findings.filter(({ verdict }) => verdict === "failure")
  if (healthy !== (failures.length === 0)) throw new Error("healthy is not what the findings say")
  return failures.map(({ of, text, remedy }) => `${of}: ${text} -> ${remedy}`)
}

/** Without what differs between two looks. */
const timeless = (text: string): string => text.replaceAll(/\d+/g, "0")

async function tryFault(t: Test, fault: Fault, { ready, metric, alert }: Stated): Promise<void> {
  const db = await database(t)
  const session = await db.session(db.superuserUrl)
  const superuser = (sql: string) => session.query(sql)
  await db.query("insert into guarantee (note) values ($1)", [CONTENT])
  await fault.prepare?.({ db, superuser })
  const url = (await fault.runsAs?.(t, db)) ?? db.url
  const relay = await startRelay(t, { url }, { CANARY_SECONDS: "0.2", ...fault.settings })
  const place = { db, superuser, relay }
  const problems = async () => (await relay.relay.report()).problems
  const isWell = async () => (await relay.relay.report()).status === "ok" && (await isReady(relay))
  await until("all is well before", isWell)

  await fault.bring(place)
  // Whatever is wrong with what is ours, who writes does not fail.
  await db.query("insert into guarantee (note) values ($1)", [CONTENT])
  const { problem, doctor: words } = fault
  if (problem !== undefined) {
    await until(`the report says it: ${problem}`, async () =>
      (await problems()).some((text) => problem.test(text)),
    )
    await until(`ready is ${ready}`, async () => (await isReady(relay)) === ready)
    let failures: string[] = []
    await until("the doctor fails on all that the report says", async () => {
      failures = await failuresOf(url, relay)
      const said = timeless(failures.join("\n"))
      return failures.length > 0 && (await problems()).every((text) => said.includes(timeless(text)))
    })
    t.match(failures.join("\n"), words, "in its own words too")
    t.notMatch(failures.join("\n") + (await problems()).join("\n"), CONTENT)
  }
  const value = () => metricOf(relay, metric, fault.labels)
  await until(metric, async () => (metric === "relay_ready" ? (await value()) === 0 : (await value()) > 0))
  t.match(alerts.get(alert), metric, `${alert} looks at it`)

  await fault.mend?.(place)
  await until("all is well again", isWell)
  t.same(await failuresOf(url, relay), [], "for the doctor too")
  const said = JSON.stringify(relay.lines)
  t.notMatch(said, CONTENT, "no log line has what is in rows")
}

/** Tries each fault of the table below a heading. */
export function tryFaults(t: Test, heading: string, faults: Record<string, Fault>): void {
  const stated = statedUnder(heading)
  t.test("the table of the document and that of the test are of the same faults", async (t) => {
    t.same(
      stated.map(({ what }) => what),
      Object.keys(faults),
    )
  })
  for (const row of stated) {
    const fault = faults[row.what]
    if (fault !== undefined) t.test(row.what, (t) => tryFault(t, fault, row))
  }
}
