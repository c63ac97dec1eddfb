/** Several processes on one port: they are one relay to clients and operations, and one that dies or hangs is replaced. */

import { type AddressInfo, createServer } from "node:net"
import t, { type Test } from "tap"
import { freePort } from "../../cli/embedded/port.ts"
import { type Client, openClient } from "../helpers/client.ts"
import { type Run, run, workDirectory } from "../helpers/command.ts"
import { startCrowd } from "../helpers/crowd.ts"
import { type Database, database } from "../helpers/database.ts"
import { follow } from "../helpers/follower.ts"
import { cursorNow } from "../helpers/log.ts"
import { SECRET, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

interface Report {
  status: string
  problems: string[]
  connections: { total: number; by_user: Record<string, number>; by_channel: Record<string, number> }
  workers: Array<{ pid: number; connections: number }>
  limits_reached: Record<string, number>
  totals: { changes: number; deliveries: number; connects: number }
  disconnects: Record<"totals" | "last", Array<{ reason: string; times: number }>>
}

async function startWorkers(t: Test, db: Pick<Database, "url">, more: Record<string, string> = {}) {
  const relay = run(t, await workDirectory(t), ["start", "--workers", "2"], {
    DATABASE_URL: db.url,
    PORT: "0",
    JWT_SECRET: SECRET,
    DRAIN_TIMEOUT_SECONDS: "1",
    ...more,
  })
  const [line] = await relay.prints("ready", /^\{"event":"ready".*\}$/m)
  const { url } = JSON.parse(line) as { url: string }
  return {
    ...relay,
    url,
    connect: (user = "7", query = "", claims: object = {}) =>
      openClient(t, `${url.replace("http", "ws")}/ws${query}`, {
        headers: { authorization: `Bearer ${token({ sub: user, ...claims })}` },
      }),
    async report(): Promise<Report> {
      const answer = await fetch(`${url}/api/utils/websocket/health/`, {
        headers: { authorization: `Bearer ${token({ role: "admin" })}`, connection: "close" },
      })
      return (await answer.json()) as Report
    },
    async metric(name: string): Promise<number> {
      const text = await (await fetch(`${url}/metrics`)).text()
      const line = text.split("\n").find((each) => each.startsWith(`${name} `))
      return Number(line?.split(" ").at(-1))
    },
  }
}

/** Whether a process is there. */
function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

const exitOf = async (relay: Pick<Run, "ended">) => relay.ended

t.test("clients on all workers get every change, in order, also of a transaction in pages", async (t) => {
  const db = await database(t)
  const relay = await startWorkers(t, db)
  const clients = await Promise.all(Array.from({ length: 8 }, () => relay.connect()))
  await Promise.all(
    clients.map((client) => client.first("success", ({ type }) => type === "connection_success")),
  )
  const { workers } = await relay.report()
  t.equal(workers.length, 2)
  t.ok(
    workers.every(({ connections }) => connections > 0),
    "both have some of them",
  )
  await db.query("insert into vote (committee_id, votes) values (1, 0)")
  await db.query("insert into vote (votes) select generate_series(1, 2500)")
  await db.query("update vote set votes = 5000 where votes = 0; delete from vote where votes = 5000")
  for (const client of clients) {
    const changes = await client.count(2_503)
    t.equal(changes.length, 2_503)
    t.same(
      changes.map(({ data }) => data?.votes),
      [0, ...Array.from({ length: 2_500 }, (_, n) => n + 1), 5_000, 5_000],
    )
    t.same(
      changes.filter(({ tx }) => tx?.last).map(({ action }) => action),
      ["create", "create", "delete"],
    )
  }
})

/** Connects, again while the relay begins anew after a stricter rule. */
async function comeBack(relay: Awaited<ReturnType<typeof startWorkers>>, query: string, claims: object) {
  let client: Client | undefined
  await until("let in", async () => {
    client = await relay.connect("7", query, claims).catch((error: Error) => {
      if (!/503/.test(error.message)) throw error
      return undefined
    })
    return client !== undefined
  })
  return client as Client
}

t.test("restricted columns are hidden on all workers, and a stricter rule reaches all of them", async (t) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  await db.query(`select relay.track('guarantee', restricted => '{"admin": ["voter_name"]}')`)
  const relay = await startWorkers(t, db)
  const crowd = async (claims: object, query = "") => {
    const clients = await Promise.all(Array.from({ length: 6 }, () => comeBack(relay, query, claims)))
    await Promise.all(
      clients.map((client) => client.first("success", ({ type }) => type === "connection_success")),
    )
    return clients
  }
  const sight = async (clients: Client[], count: number) => {
    const all = await Promise.all(clients.map((client) => client.count(count)))
    return new Set(
      all.map((changes) => JSON.stringify(changes.map(({ data }) => [data?.voter_name, data?.note]))),
    )
  }
  const cursor = await cursorNow(db)
  const [others, admins] = [await crowd({}), await crowd({ roles: ["admin"] })]
  await db.query("insert into guarantee (voter_name, note) values ('Ada', 'n')")
  t.same(await sight(others, 1), new Set(['[[null,"n"]]']))
  t.same(await sight(admins, 1), new Set(['[["Ada","n"]]']))
  t.same(await sight(await crowd({}, `?cursor=${cursor}`), 1), new Set(['[[null,"n"]]']), "from memory")
  await db.query(`select relay.track('guarantee', restricted => '{"admin": ["voter_name", "note"]}')`)
  for (const client of [...others, ...admins]) t.equal((await client.closed).code, 4010)
  const back = await crowd({}, `?cursor=${cursor}`)
  for (const { messages } of back) t.match(messages[0], { recovered: false, reason: "lineage" })
  await db.query("insert into guarantee (voter_name, note) values ('Ada', 'n')")
  t.same(await sight(back, 1), new Set(["[[null,null]]"]))
})

t.test("a limit holds in each worker, and what reached it is counted together", async (t) => {
  const db = await database(t)
  const relay = await startWorkers(t, db, { MAX_CONNECTIONS_PER_USER: "1" })
  const clients = await Promise.all(Array.from({ length: 6 }, () => relay.connect()))
  let refused = 0
  for (const client of clients)
    void client.closed.then(({ code }) => {
      if (code === 4504) refused++
    })
  await until("all have an answer", () => {
    const live = clients.filter(({ messages }) => messages[0]?.type === "connection_success").length
    return live + refused === clients.length
  })
  t.ok(refused >= 4, "one stays in each")
  t.same((await relay.report()).limits_reached, { connections_per_user: refused })
  const limited = await relay.metric('relay_limits_reached_total{limit="connections_per_user"}')
  t.equal(limited, refused)
})

t.test("health and metrics are of all workers together, whichever answers", async (t) => {
  const db = await database(t)
  const relay = await startWorkers(t, db)
  const clients = await Promise.all(
    ["7", "7", "8", "8", "9"].map((user) => relay.connect(user, "?channels=committee:1")),
  )
  await Promise.all(
    clients.map((client) => client.first("success", ({ type }) => type === "connection_success")),
  )
  await db.query("insert into vote (committee_id) values (1)")
  for (const client of clients) await client.count(1)
  for (let n = 0; n < 4; n++) {
    const report = await relay.report()
    t.match(report, {
      status: "ok",
      problems: [],
      connections: {
        total: 5,
        by_user: { 7: 2, 8: 2, 9: 1 },
        by_channel: { "committee:1": 5 },
        replaying: 0,
      },
      listener: { state: "up" },
      feed: { state: "up", cursor: /:/ },
      tables: [{ name: "public.attendance" }, { name: "public.guarantee" }, { name: "public.vote" }],
    })
    t.equal(
      report.workers.reduce((sum, { connections }) => sum + connections, 0),
      5,
    )
  }
  for (let n = 0; n < 4; n++) {
    t.equal(await relay.metric("relay_connections"), 5)
    t.equal(await relay.metric("relay_users"), 3, "a user on two workers is one")
    t.equal(await relay.metric("relay_deliveries_total"), 5)
    t.equal(await relay.metric('relay_events_total{table="public.vote",op="insert"}'), 1, "read once for all")
    t.equal(await relay.metric("relay_workers"), 2)
    t.equal(await relay.metric("relay_feed_up"), 1)
  }
  t.equal((await fetch(`${relay.url}/health/ready`)).status, 200)
})

t.test("what was counted, and how connections ended, is told of all workers together", async (t) => {
  const db = await database(t)
  const relay = await startWorkers(t, db)
  const clients = await Promise.all(
    Array.from({ length: 6 }, () => relay.connect("7", "?channels=committee:1")),
  )
  await Promise.all(
    clients.map((client) => client.first("success", ({ type }) => type === "connection_success")),
  )
  t.ok(
    (await relay.report()).workers.every(({ connections }) => connections > 0),
    "on all of them",
  )
  await db.query("insert into vote (committee_id) values (1), (1), (2)")
  for (const client of clients) await client.count(2)
  for (const client of clients) client.socket.close(1000)
  for (let n = 0; n < 4; n++) await t.rejects(openClient(t, `${relay.url.replace("http", "ws")}/elsewhere`))
  await until("all have left", async () => (await relay.report()).connections.total === 0)
  for (let n = 0; n < 4; n++) {
    const { totals, disconnects } = await relay.report()
    t.same(totals, { changes: 3, deliveries: 12, connects: 6 }, "changes are read once for all")
    for (const told of [disconnects.totals, disconnects.last])
      t.same(Object.fromEntries(told.map(({ reason, times }) => [reason, times])), { done: 6, wrong_path: 4 })
  }
})

t.test("a worker that is killed costs its clients a moment, nothing else, and is replaced", async (t) => {
  const db = await database(t)
  const relay = await startWorkers(t, db)
  const followers = Array.from({ length: 6 }, () => follow(t, relay.url, db.url))
  for (const follower of followers) await follower.reaches("live")
  const crowd = await startCrowd(t, db.url)
  const before = (await relay.report()).workers
  for (const { pid } of before) {
    const from = crowd.committed()
    await until("the writers go on", () => crowd.committed() > from + 20)
    process.kill(pid, "SIGKILL")
    await until("another one has come", async () => {
      const report = await relay.report().catch(() => undefined)
      return report?.workers.length === 2 && report.workers.every((worker) => worker.pid !== pid)
    })
  }
  await crowd.stop()
  for (const [n, follower] of followers.entries()) {
    await follower.isWhole(t, `follower ${n}`)
    t.equal(follower.loads(), 1, "nothing had to be loaded again")
  }
  t.equal(await relay.metric('relay_worker_exits_total{reason="exit"}'), 2)
})

t.test(
  "numbers are computed once for all workers, and stand for the clients of one that comes later",
  async (t) => {
    const db = await database(t)
    await db.query(`
    create function total() returns json language sql as $$ select to_json(coalesce(sum(votes), 0)) from vote $$;
    select relay.define_derived('total', 'total', '{vote}', min_interval => '100 milliseconds')`)
    const relay = await startWorkers(t, db)
    const clients = await Promise.all(
      Array.from({ length: 6 }, () => relay.connect("7", "?channels=dashboard")),
    )
    const told = (client: (typeof clients)[number], data: unknown) =>
      client.first(`the total ${data}`, (message) => message.type === "total" && message.data === data)
    for (const client of clients) await told(client, 0)
    await db.query("insert into vote (votes) values (42)")
    for (const client of clients) await told(client, 42)
    t.ok(
      (await relay.report()).workers.every(({ connections }) => connections > 0),
      "on all of them",
    )
    for (const { pid } of (await relay.report()).workers) process.kill(pid, "SIGKILL")
    await Promise.all(clients.map(({ closed }) => closed))
    await until("both are replaced", async () => {
      const report = await relay.report().catch(() => undefined)
      return report?.workers.length === 2 && report.status === "ok"
    })
    for (let n = 0; n < 4; n++) await told(await relay.connect("7", "?channels=dashboard"), 42)
  },
)

t.test("a worker that hangs holds up the others for a while only", async (t) => {
  const db = await database(t)
  const relay = await startWorkers(t, db)
  const follower = follow(t, relay.url, db.url)
  await follower.reaches("live")
  const { workers } = await relay.report()
  const other = workers.find(({ connections }) => connections === 0)
  if (other === undefined) throw new Error("the other worker is not known")
  process.kill(other.pid, "SIGSTOP")
  t.teardown(() => runs(other.pid) && process.kill(other.pid, "SIGKILL"))
  for (let n = 0; n < 5; n++) await db.query("insert into vote (votes) values ($1)", [n])
  await until("it is ended", () => !runs(other.pid))
  await follower.isWhole(t, "after it")
  t.match(relay.err(), '"event":"worker_ended"')
  t.match(relay.err(), '"reason":"stuck"')
})

t.test("nobody outlives the first process, however it ends", async (t) => {
  const db = await database(t)
  for (const [signal, code] of [
    ["SIGTERM", 0],
    ["SIGINT", 0],
    ["SIGKILL", null],
  ] as const) {
    const relay = await startWorkers(t, db)
    const client = await relay.connect()
    await client.first("success", ({ type }) => type === "connection_success")
    const { workers } = await relay.report()
    // A terminal sends it to all of them.
    if (signal === "SIGINT") for (const { pid } of workers) process.kill(pid, signal)
    relay.child.kill(signal)
    t.equal(await exitOf(relay), code, signal)
    t.equal((await client.closed).code, signal === "SIGKILL" ? 1006 : 4000, signal)
    await until(`${signal}: no worker is left`, () => workers.every(({ pid }) => !runs(pid)))
  }
})

t.test("a port that is taken, and a number of workers that is none", async (t) => {
  const db = await database(t)
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve))
  t.teardown(() => taken.close())
  const cwd = await workDirectory(t)
  const env = { DATABASE_URL: db.url, JWT_SECRET: SECRET }
  const start = async (...args: string[]) => {
    const relay = run(t, cwd, ["start", ...args], env)
    return { code: await relay.ended, err: relay.err() }
  }
  const { port } = taken.address() as AddressInfo
  t.match(await start("--workers", "2", "--port", String(port)), { code: 2, err: /PORT.*is taken/ })
  for (const wrong of ["0", "-1", "1.5", "many"])
    t.match(await start("--workers", wrong), { code: 2, err: /WORKERS \(--workers\) is wrong/ }, wrong)
})

t.test("a database that is away at the start, and comes back", async (t) => {
  const db = await database(t)
  const port = await freePort()
  const relay = run(t, await workDirectory(t), ["start", "--workers", "auto"], {
    DATABASE_URL: db.url.replace(`:${db.port}/`, `:${port}/`),
    PORT: "0",
    JWT_SECRET: SECRET,
  })
  const [, url] = await relay.prints("HTTP", /"event":"http_up","url":"([^"]+)"/)
  await relay.prints("a try", /"event":"database_down"/)
  t.equal((await fetch(`${url}/health/live`)).status, 200)
  t.equal((await fetch(`${url}/health/ready`)).status, 503)
  relay.child.kill("SIGTERM")
  t.equal(await relay.ended, 0)
})
