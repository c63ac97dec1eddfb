/** The canary: a relay notices by itself that the log does not show it what is written. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { onLogTables, readLog, role } from "../helpers/log.ts"
import { metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const SOON = { CANARY_SECONDS: "0.2" }

interface Report {
  status: string
  problems: string[]
  feed: { proven_seconds_ago: number | null }
}

async function report({ url }: TestRelay): Promise<Report> {
  const answer = await fetch(`${url}/api/utils/websocket/health/`, {
    headers: { authorization: `Bearer ${token({ role: "admin" })}` },
  })
  return (await answer.json()) as Report
}

const readiness = async ({ url }: TestRelay): Promise<number> => (await fetch(`${url}/health/ready`)).status

const attempts = (relay: TestRelay, result: string): Promise<number> =>
  metricOf(relay, "relay_canaries_total", `result="${result}"`)

/** A role that may do what a relay does, and that owns nothing. */
async function admitted(t: Parameters<typeof role>[0], db: Database): Promise<string> {
  const url = await role(t, db, "relayer")
  await db.query("select relay.admit_relay($1)", [new URL(url).username])
  return url
}

t.test("what the relay writes comes back, and no client is sent it", async (t) => {
  const began = performance.now()
  const db = await database(t)
  const relay = await startRelay(t, db, SOON)
  const client = await relay.connect({ role: "admin" }, "?channels=election_updates,relay:canary")
  const { cursor } = (await client.first("where it stands", ({ cursor }) => cursor !== undefined)) as {
    cursor: string
  }
  await until("some are back", async () => (await metricOf(relay, "relay_canary_seconds_count")) >= 3)
  const { status, feed } = await report(relay)
  t.equal(status, "ok")
  t.ok(
    feed.proven_seconds_ago !== null && feed.proven_seconds_ago * 1_000 <= performance.now() - began,
    `${feed.proven_seconds_ago} s ago`,
  )
  await db.query("insert into vote (votes) values (1)")
  await client.count(1)
  const again = await relay.connect(
    { role: "admin" },
    `?channels=election_updates,relay:canary&cursor=${cursor}`,
  )
  await again.first("the end of the replay", ({ type, replayed }) => type === "checkpoint" && replayed === 1)
  for (const { messages } of [client, again])
    t.notOk(JSON.stringify(messages.filter(({ type }) => type !== "connection_success")).includes("canary"))
  t.equal(await metricOf(relay, "relay_events_total", 'table="",op="message"'), 0, "it is no change")
  t.ok((await readLog(db)).some(({ type }) => type === "canary"))
})

t.test("they come as far apart as is set", async (t) => {
  const db = await database(t)
  await startRelay(t, db, { CANARY_SECONDS: "3" })
  const apart = async () => {
    const rows = await db.query<{ apart: number }>(
      "select extract(epoch from at - lag(at) over (order by seq))::float8 as apart from relay.change where type = 'canary' order by seq offset 1",
    )
    return rows.map(({ apart }) => apart)
  }
  await until("one has waited for its time", async () => (await apart()).some((seconds) => seconds >= 2.9))
  // The next comes sooner where one was written before the relay had a position to read from.
  t.ok((await apart()).every((seconds) => seconds >= 1.9))
})

t.test(
  "a log that hides its rows makes the relay not ready, and ready again when it shows them",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, { url: await admitted(t, db) }, SOON)
    await until("one is back", async () => (await metricOf(relay, "relay_canary_seconds_count")) > 0)
    await db.query(onLogTables((log) => `alter table ${log} enable row level security`))
    await until("not ready", async () => (await readiness(relay)) === 503)
    t.match((await report(relay)).problems, ["the log does not show what the relay itself has written to it"])
    await db.query(onLogTables((log) => `alter table ${log} disable row level security`))
    await until("ready", async () => (await readiness(relay)) === 200)
  },
)

t.test(
  "a log that cannot be written is reported, and makes the relay not ready once that lasts",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, SOON)
    await db.query(
      onLogTables((log) => `alter table ${log} add constraint no_birds check (what <> 3) not valid`),
    )
    await until("it is told", async () => (await report(relay)).status === "degraded")
    t.match((await report(relay)).problems, [/the relay cannot write to the log: .*no_birds/])
    t.ok((await attempts(relay, "failed")) > 0)
    await until("not ready", async () => (await readiness(relay)) === 503)
    const told = (await report(relay)).problems.filter((problem) => problem.includes("no_birds"))
    t.equal(told.length, 1, "said once")
    t.equal(relay.lines.filter(({ event }) => event === "canary_failed").length, 1, "logged once")
    await db.query(onLogTables((log) => `alter table ${log} drop constraint no_birds`))
    await until("it is well", async () => (await report(relay)).status === "ok")
    t.equal(await readiness(relay), 200)
  },
)

t.test("a role that may not write canaries relays all the same", async (t) => {
  const db = await database(t)
  const url = await admitted(t, db)
  await db.query(`revoke execute on function relay.canary(text) from ${new URL(url).username}`)
  const relay = await startRelay(t, { url }, SOON)
  await until("it has tried", async () => (await attempts(relay, "not_allowed")) > 1)
  t.match(await report(relay), { status: "ok", problems: [], feed: { proven_seconds_ago: null } })
  const client = await relay.connect()
  await db.query("insert into vote (votes) values (1)")
  await client.count(1)
})

t.test("canaries that a position was lost with are not waited for", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, SOON)
  await until("one is back", async () => (await metricOf(relay, "relay_canary_seconds_count")) > 0)
  await db.query("select relay.begin_lineage()")
  const returned = await metricOf(relay, "relay_canary_seconds_count")
  await until(
    "others come back",
    async () => (await metricOf(relay, "relay_canary_seconds_count")) > returned + 2,
  )
  t.match(await report(relay), { status: "ok", problems: [] })
})
