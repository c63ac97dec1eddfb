/** The metrics: that each is documented, and what some of them measure. */

import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import t from "tap"
import { z } from "zod"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { database } from "../helpers/database.ts"
import { metricOf, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const OPERATIONS = fileURLToPath(new URL("../../docs/OPERATIONS.md", import.meta.url))
/** Of the process that speaks for several; tests/cli/workers reads it. */
const OF_WORKERS = "relay_workers"

const Labelled = z.object({ name: z.string(), labelNames: z.array(z.string()) })

/** Each metric that the documentation names, with its labels. */
function documented(): string[] {
  const section = /^## Metrics\n(.*?)^## /ms.exec(readFileSync(OPERATIONS, "utf8"))?.[1] ?? ""
  const names = section.split("\n").flatMap((row) => /^\| (`.*?) \|/.exec(row)?.[1] ?? [])
  return names.flatMap((cell) =>
    [...cell.matchAll(/`(relay_\w+(?:\{[\w,]+\})?)`/g)].map(([, name]) => name ?? ""),
  )
}

t.test("every metric is documented with its labels, and every documented one is there", async (t) => {
  const db = await database(t)
  const { relay } = await startRelay(t, db)
  const labels = new Map<string, string[]>()
  for (const value of Object.values(createMetrics())) {
    const metric = Labelled.safeParse(value)
    if (metric.success) labels.set(metric.data.name, metric.data.labelNames)
  }
  const exposed = (await relay.metrics.registry.getMetricsAsJSON())
    .map(({ name }) => name)
    .filter((name) => name.startsWith("relay_"))
  const withLabels = exposed.map((name) => {
    const known = labels.get(name) ?? []
    return known.length === 0 ? name : `${name}{${known.join(",")}}`
  })
  t.ok(withLabels.length > 40)
  t.same(documented().sort(), [...withLabels, OF_WORKERS].sort())
})

t.test("how old a transaction is when it is sent is measured from its last row", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  await db.query("insert into vote (votes) values (0)")
  await until("it is read", async () => (await metricOf(relay, "relay_unrouted_total")) === 1)
  t.equal(await metricOf(relay, "relay_send_seconds_count"), 0, "nobody was there to be sent it")
  const client = await relay.connect()
  await db.query("begin; insert into vote (votes) values (1), (2); commit")
  await client.count(2)
  await db.query("begin; insert into vote (votes) values (3); select pg_sleep(0.6); commit")
  await client.count(3)
  await until("both are measured", async () => (await metricOf(relay, "relay_send_seconds_count")) === 2)
  t.ok((await metricOf(relay, "relay_send_seconds_sum")) >= 0.6)
  t.equal(await metricOf(relay, "relay_send_seconds_bucket", 'le="30"'), 2)
  t.ok((await metricOf(relay, "relay_send_seconds_bucket", 'le="0.5"')) <= 1, "the one that dawdled is old")
})

t.test("how much of a long read is still to be delivered", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  const seen: number[] = []
  const done = client.count(30_000)
  let over = false
  void done.then(() => {
    over = true
  })
  await db.query("insert into vote (votes) select n from generate_series(1, 30000) n")
  while (!over) {
    seen.push(await metricOf(relay, "relay_feed_backlog"))
    await new Promise(setImmediate)
  }
  await done
  t.ok(Math.max(...seen) > 1_000 && Math.max(...seen) <= 30_000, `up to ${Math.max(...seen)}`)
  await until("nothing is left", async () => (await metricOf(relay, "relay_feed_backlog")) === 0)
})

t.test("the size of the log", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const [row] = await db.query<{ bytes: number }>(
    "select sum(pg_total_relation_size(format('relay.change_%s', slot)::regclass))::int as bytes from generate_series(0, 2) slot",
  )
  await until("it was looked at", async () => (await metricOf(relay, "relay_log_bytes")) > 0)
  t.equal(await metricOf(relay, "relay_log_bytes"), row?.bytes)
})
