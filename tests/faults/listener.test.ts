/** The listening session against what breaks it: the known faults of pg-listen, and the network's. */

import t, { type Test } from "tap"
import { openListenSession } from "../../relay/feed/listen-session.ts"
import { Listener } from "../../relay/feed/listener.ts"
import { openDatabase } from "../../relay/lib/database.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { type Database, database } from "../helpers/database.ts"
import { startProxy, type TcpProxy } from "../helpers/proxy.ts"
import { until } from "../helpers/wait.ts"

interface World {
  db: Database
  proxy: TcpProxy
  listener: Listener
  bells(): number
  leases(): number
  ups(): number
  count(kind: string): Promise<number>
  isUp(): boolean
  backends(): Promise<number>
}

async function world(
  t: Test,
  proofs: { proofIntervalMs?: number; proofTimeoutMs?: number } = {},
): Promise<World> {
  const db = await database(t)
  const proxy = await startProxy(t, db.port)
  const metrics = createMetrics()
  let bells = 0
  let leases = 0
  let ups = 0
  const through = openDatabase(db.url.replace(`:${db.port}/`, `:${proxy.port}/`))
  const listener = new Listener({
    open: (options) => openListenSession({ database: through, channel: "election_updates", ...options }),
    log: createLog({ LOG_LEVEL: "silent", LOG_FORMAT: "json" }),
    metrics,
    onBell: () => bells++,
    onLease: () => leases++,
    onUp: () => ups++,
    ...proofs,
  })
  t.teardown(() => listener.stop())
  const isUp = () => listener.state.kind === "up"
  return {
    db,
    proxy,
    listener,
    bells: () => bells,
    leases: () => leases,
    ups: () => ups,
    isUp,
    async count(kind) {
      const { values } = await metrics.bells.get()
      return values.find(({ labels }) => labels.kind === kind)?.value ?? 0
    },
    async backends() {
      const rows = await db.query<{ n: number }>(
        "select count(*)::int as n from pg_stat_activity where datname = current_database() and application_name = 'commitcast listener'",
      )
      return rows[0]?.n ?? -1
    },
  }
}

t.test(
  "a bell is heard, and a listener says that it is up only after its own notification came back",
  async (t) => {
    const { db, listener, bells, isUp } = await world(t)
    listener.start()
    await until("up", isUp)
    await db.query("insert into vote (votes) values (1)")
    await until("a bell", () => bells() === 1)
  },
)

t.test("a terminated backend is replaced, and the catch-up moment is told again", async (t) => {
  const { db, listener, isUp, ups, bells } = await world(t)
  listener.start()
  await until("up", isUp)
  await db.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'commitcast listener'",
  )
  await until("up again", () => ups() === 2 && isUp())
  await db.query("insert into vote (votes) values (1)")
  await until("a bell", () => bells() === 1)
})

t.test("an outage of more than three seconds does not end it", async (t) => {
  const { listener, proxy, isUp, ups } = await world(t)
  listener.start()
  await until("up", isUp)
  proxy.refuse()
  proxy.cut()
  await until("down", () => !isUp())
  const downSince = Date.now()
  await until("3.5 s of outage", () => Date.now() - downSince > 3_500)
  t.notOk(isUp())
  proxy.heal()
  await until("up again", () => ups() === 2 && isUp())
})

t.test("a database that is away at the start is waited for", async (t) => {
  const { listener, proxy, isUp } = await world(t)
  proxy.refuse()
  listener.start()
  await until("some attempts", () => {
    const state = listener.state
    return state.kind === "down" && state.attempts >= 3
  })
  proxy.heal()
  await until("up", isUp)
})

t.test("a half-open connection is noticed by the missing proof and replaced", async (t) => {
  const { listener, proxy, isUp, ups } = await world(t, { proofIntervalMs: 100, proofTimeoutMs: 200 })
  listener.start()
  await until("up", isUp)
  proxy.silence()
  await until("up again on another connection", () => ups() === 2 && isUp())
})

t.test("a connection that breaks again and again while it is set up is tried until it holds", async (t) => {
  const { listener, proxy, isUp, backends } = await world(t, { proofIntervalMs: 50 })
  listener.start()
  for (let round = 0; round < 5; round++) {
    await until("a connection", () => proxy.count() > 0)
    proxy.cut()
    await until("it is gone", () => proxy.count() === 0 || isUp())
  }
  await until("up", isUp)
  await until("one backend only", async () => (await backends()) === 1)
})

t.test("garbage and forged notifications are counted and harm nothing", async (t) => {
  const { db, listener, isUp, ups, bells, leases, count } = await world(t)
  listener.start()
  await until("up", isUp)
  const garbage = [
    "",
    "{",
    "null",
    "[]",
    '"text"',
    "{}",
    '{"v":2}',
    '{"v":1,"table":7}',
    "x".repeat(7_999),
    '{"v":1,"lease":"soon"}',
  ]
  for (const payload of garbage) await db.query("select pg_notify('election_updates', $1)", [payload])
  await db.query("notify election_updates")
  await db.query("notify other_channel, '{\"v\":1}'")
  await db.query("select pg_notify('election_updates', $1)", [
    JSON.stringify({ v: 1, canary: "somebody else's" }),
  ])
  const forged = { v: 1, table: "public.vote", op: "insert", rows: 1, xid: "1" }
  await db.query("select pg_notify('election_updates', $1)", [JSON.stringify(forged)])
  await until("the forged bell", () => bells() === 1)
  t.equal(await count("garbage"), garbage.length + 1, "one of them twice without a payload")
  t.equal(leases(), 0)
  await db.query("select relay.set_lease(1000)")
  await until("a lease", () => leases() === 1)
  t.equal(bells(), 1, "which is no bell")
  t.ok(isUp())
  t.equal(ups(), 1)
})

t.test("stopping ends a running reconnect at once and leaves no connection behind", async (t) => {
  const { listener, proxy, isUp, backends } = await world(t)
  listener.start()
  await until("up", isUp)
  proxy.refuse()
  proxy.cut()
  await until("down", () => !isUp())
  await listener.stop()
  proxy.heal()
  t.equal(await backends(), 0)
  t.equal(proxy.count(), 0)
})

t.test("stopping while connected closes the session", async (t) => {
  const { listener, isUp, backends } = await world(t)
  listener.start()
  await until("up", isUp)
  await listener.stop()
  await until("no backend", async () => (await backends()) === 0)
})
