/** The dashboard asks for what a relay tells, and is one that can be read. */

import { execFile, spawnSync } from "node:child_process"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import t from "tap"
import { stringify } from "yaml"
import { z } from "zod"
import { workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { startRelay } from "../helpers/relay.ts"
import { shipped } from "../helpers/shipped.ts"

const Source = z.object({ type: z.literal("prometheus"), uid: z.literal(`\${datasource}`) })
const Place = z.object({ x: z.int(), y: z.int(), w: z.int(), h: z.int() })
type Place = z.infer<typeof Place>
const Row = z.object({ type: z.literal("row"), id: z.int(), title: z.string().min(1), gridPos: Place })
const Panel = z.object({
  type: z.enum(["timeseries", "stat"]),
  id: z.int(),
  title: z.string().min(1),
  description: z.string().min(1),
  datasource: Source,
  gridPos: Place,
  fieldConfig: z.object({ defaults: z.object({ unit: z.string().min(1) }) }),
  targets: z
    .array(z.object({ refId: z.string(), datasource: Source, expr: z.string(), legendFormat: z.string() }))
    .min(1),
})
const Dashboard = z.object({
  schemaVersion: z.int().min(39),
  templating: z.object({
    list: z.tuple([
      z.object({
        name: z.literal("datasource"),
        type: z.literal("datasource"),
        query: z.literal("prometheus"),
      }),
      z.object({
        name: z.literal("instance"),
        type: z.literal("query"),
        datasource: Source,
        definition: z.string(),
      }),
    ]),
  }),
  panels: z.array(z.discriminatedUnion("type", [Row, Panel])),
})

const dashboard = Dashboard.parse(JSON.parse(shipped("grafana/commitcast.json")))
const panels = dashboard.panels.filter((panel) => panel.type !== "row")
const targets = panels.flatMap((panel) => panel.targets)
/** As Grafana would ask. */
const EXPRESSIONS = targets.map(({ expr }) =>
  expr.replaceAll("$__rate_interval", "5m").replaceAll("$instance", ".*"),
)
const OF_SAMPLES = /_(?:bucket|sum|count)$/
/** What Prometheus adds, and what a histogram has. */
const GIVEN_LABELS = ["instance", "job", "le"]

const promtool = spawnSync("promtool", ["--version"]).status === 0

t.test("whatever it asks for a relay tells", async (t) => {
  const relay = await startRelay(t, await database(t))
  const text = await (await fetch(`${relay.url}/metrics`)).text()
  const kinds = new Map(
    [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = "", kind]) => [name, kind]),
  )
  const Labelled = z.object({ labelNames: z.array(z.string()) })
  const labelsOf = (name: string) =>
    Labelled.parse(relay.relay.metrics.registry.getSingleMetric(name)).labelNames
  for (const { expr, legendFormat } of targets) {
    const names = [...expr.matchAll(/\b(?:relay|process|nodejs)_\w+/g)].map(([name]) => name)
    t.equal(names.length, 1, expr)
    const [name = ""] = names
    const metric = kinds.has(name) ? name : name.replace(OF_SAMPLES, "")
    const kind = kinds.get(metric)
    t.ok(kind, `${name} is there`)
    t.equal(kind === "histogram", name !== metric, `${name} is one of its series`)
    t.equal(kind !== "gauge", /\b(?:rate|increase)\(/.test(expr), `${name}, which only grows, by its growth`)
    const labels = [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = ""]) => list.split(", "))
    for (const label of labels)
      t.ok([...labelsOf(metric), ...GIVEN_LABELS].includes(label), `${name}: ${label}`)
    const kept = /\b(?:sum|max)\b/.test(expr) ? labels : [...labelsOf(metric), "instance"]
    for (const [, label = ""] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
      t.ok(kept.includes(label), `{{${label}}}`)
  }
})

t.test("it asks only for the relays that are chosen", async (t) => {
  for (const { expr } of targets) t.equal(expr.split('{instance=~"$instance"}').length, 2, expr)
  t.match(dashboard.templating.list[1].definition, /^label_values\(relay_\w+, instance\)$/)
})

t.test(
  "Prometheus can read every expression",
  { skip: !promtool && "no promtool on this machine" },
  async (t) => {
    const path = join(await workDirectory(t), "rules.yml")
    const rules = EXPRESSIONS.map((expr, n) => ({ record: `panel:${n}`, expr }))
    await writeFile(path, stringify({ groups: [{ name: "dashboard", rules }] }))
    const { stdout } = await promisify(execFile)("promtool", ["check", "rules", path])
    t.match(stdout, `SUCCESS: ${rules.length} rules found`)
  },
)

t.test("no panel covers another, and each has a number of its own", async (t) => {
  const places = dashboard.panels.map(({ id, gridPos }) => ({ id, ...gridPos }))
  t.equal(new Set(places.map(({ id }) => id)).size, places.length)
  const apart = (one: Place, other: Place): boolean =>
    one.x + one.w <= other.x ||
    other.x + other.w <= one.x ||
    one.y + one.h <= other.y ||
    other.y + other.h <= one.y
  const covered = places.flatMap((one, n) =>
    places.slice(n + 1).flatMap((other) => (apart(one, other) ? [] : [[one.id, other.id]])),
  )
  t.strictSame(covered, [])
  t.strictSame(
    places.filter(({ x, w }) => x < 0 || x + w > 24),
    [],
    "all are within the width",
  )
})
