/** What operations see: the admin's report, the probes, the metrics; and what nobody may see: tokens. */

import { request } from "node:http"
import { connect, type Socket } from "node:net"
import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const REPORT = "/api/utils/websocket/health/"

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

const get = (relay: TestRelay, path: string, authorization?: string, method = "GET") =>
  fetch(relay.url + path, { method, ...(authorization === undefined ? {} : { headers: { authorization } }) })

const bearer = () => ({ headers: { authorization: `Bearer ${token()}` } })

const admin = (claims: Record<string, unknown> = { role: "admin" }) => `Bearer ${token(claims)}`

interface Report {
  status: string
  problems: string[]
  instance: string
  uptime_seconds: number
  connections: { total: number; by_user: Record<string, number>; by_channel: Record<string, number> }
  totals: Record<string, number>
  disconnects: { totals: Disconnect[]; last: Disconnect[] }
  tables: unknown[]
}

interface Disconnect {
  what: string
  code: number | null
  reason: string
  times: number
}

const byKind = (a: Disconnect, b: Disconnect): number =>
  `${a.what} ${a.reason}`.localeCompare(`${b.what} ${b.reason}`)

async function report(relay: TestRelay, query = ""): Promise<Report> {
  const answer = await get(relay, REPORT + query, admin())
  return (await answer.json()) as Report
}

/** The metrics as name and labels to value. */
async function metrics(relay: TestRelay): Promise<Map<string, number>> {
  const text = await (await get(relay, "/metrics")).text()
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"))
  return new Map(
    lines.map((line) => [
      line.slice(0, line.lastIndexOf(" ")),
      Number(line.slice(line.lastIndexOf(" ") + 1)),
    ]),
  )
}

t.test("the report is for admins", async (t) => {
  const { relay } = await start(t)
  const refused: Array<[authorization: string | undefined, status: number, error: string]> = [
    [undefined, 401, "token missing"],
    ["Bearer", 401, "token missing"],
    ["Basic dXNlcjpwYXNz", 401, "token missing"],
    ["Bearer x", 401, "token invalid"],
    [`Bearer ${token({ role: "admin", exp: 1 })}`, 401, "token expired"],
    [`Bearer ${token({ role: "admin", token_type: "refresh" })}`, 401, "token invalid"],
    [admin({}), 403, "only for admins"],
    [admin({ role: "Admin" }), 403, "only for admins"],
    [admin({ is_staff: false }), 403, "only for admins"],
  ]
  for (const [authorization, status, error] of refused) {
    const answer = await get(relay, REPORT, authorization)
    t.equal(answer.status, status)
    t.equal(answer.headers.get("www-authenticate"), status === 401 ? "Bearer" : null)
    t.same(await answer.json(), { error })
  }
  t.equal(
    (await get(relay, `${REPORT}?token=${token({ role: "admin" })}`)).status,
    401,
    "no token in the URL",
  )
  for (const authorization of [admin(), admin({ is_staff: true }), admin().replace("Bearer", "bearer")]) {
    const answer = await get(relay, REPORT, authorization)
    t.equal(answer.status, 200)
    t.equal(answer.headers.get("cache-control"), "no-store")
    t.equal(answer.headers.get("content-type"), "application/json; charset=utf-8")
  }
})

t.test("the report says how everything stands", async (t) => {
  const { relay, db } = await start(t)
  await relay.connect({ sub: "7" })
  await relay.connect({ sub: "7" }, "?channels=committee:1,election:2")
  const client = await relay.connect({ sub: "8" }, "?channels=committee:1")
  await db.query("insert into vote (committee_id) values (1)")
  await client.count(1)
  await db.query("alter table vote alter votes type bigint; alter table vote add column late int")
  const found = await report(relay)
  t.match(found, {
    status: "degraded",
    problems: [
      /^public\.vote: a captured column was renamed, retyped or dropped: track it again \(since \d{4}-.+Z\)$/,
    ],
    version: "0.0.0-test",
    instance: /^[0-9a-f-]{36}$/,
    at: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/,
    uptime_seconds: Number,
    listener: { state: "up", since_seconds: Number, proven_seconds_ago: Number, error: null },
    feed: {
      state: "up",
      since_seconds: Number,
      lag_seconds: Number,
      cursor: /^[0-9a-z]+:\d+:\d+:[\d,]*$/,
      bell: { mode: /^(quiet|tail)$/, heard: 1, skipped: 0, polls: Number },
      error: null,
    },
    keys: { source: "settings", known: 1, fetched_seconds_ago: null, error: null },
  })
  t.same(found.connections, {
    total: 3,
    users: 2,
    by_user: { 7: 2, 8: 1 },
    channels: 3,
    by_channel: { election_updates: 1, "committee:1": 2, "election:2": 1 },
    lanes: 3,
    replaying: 0,
  })
  t.match(found.tables, [
    {
      name: "public.attendance",
      type: "attendance_update",
      level: "row",
      problem: null,
      not_captured: [],
    },
    { name: "public.guarantee", type: "guarantee_update", problem: null },
    {
      name: "public.vote",
      type: "voting_update",
      problem: /column was renamed, retyped or dropped/,
      not_captured: ["late"],
    },
  ])
  t.same(found.totals, { changes: 1, deliveries: 3, connects: 3 })
  t.same(found.disconnects, { totals: [], last: [] })
  t.same(Object.keys(found).sort(), [
    "at",
    "connections",
    "derived",
    "disconnects",
    "feed",
    "instance",
    "keys",
    "limits_reached",
    "listener",
    "problems",
    "revocations",
    "status",
    "tables",
    "totals",
    "uptime_seconds",
    "version",
  ])
})

t.test("the report names the last closes and refusals with their reason, and how many", async (t) => {
  const { relay } = await start(t, { MAX_CHANNELS: "1", MAX_ERRORS: "1" })
  const refused = (path: string, options?: Parameters<TestRelay["open"]>[1]) =>
    t.rejects(relay.open(path, options))
  await refused("/elsewhere")
  await refused("/elsewhere")
  await refused("/ws", { headers: { origin: "https://evil.example" } })
  for (const path of ["/ws?token=x", "/ws?channels=committee:1,committee:2", "/ws?channels=user:8"])
    await (await relay.open(path, path.includes("token") ? {} : bearer())).closed
  const talker = await relay.connect()
  talker.send("?")
  talker.send("?")
  await talker.closed
  const codes = [1000, 1001, 4321, 4322]
  for (const code of codes) {
    const client = await relay.connect()
    client.socket.close(code, "made up")
    await client.closed
  }
  const cut = await relay.connect()
  cut.socket.terminate()
  const garbled = await relay.connect()
  // A frame that is not masked, which no client may send.
  ;(garbled.socket as unknown as { _socket: Socket })._socket.write(Buffer.from([0x81, 0x01, 0x61]))
  await garbled.closed
  await until("all have ended", async () => (await report(relay)).connections.total === 0)
  const { totals, last } = (await report(relay)).disconnects
  const expected = [
    { what: "refused", code: 404, reason: "wrong_path", times: 2 },
    { what: "refused", code: 403, reason: "origin", times: 1 },
    { what: "closed", code: 4500, reason: "invalid_token", times: 1 },
    { what: "closed", code: 4505, reason: "too_many_channels", times: 1 },
    { what: "closed", code: 4507, reason: "forbidden", times: 1 },
    { what: "closed", code: 4509, reason: "too_many_errors", times: 1 },
    { what: "left", code: 1000, reason: "done", times: 1 },
    { what: "left", code: 1001, reason: "going_away", times: 1 },
    { what: "left", code: null, reason: "own_code", times: 2 },
    { what: "cut", code: 1006, reason: "no_close_frame", times: 1 },
    { what: "closed", code: null, reason: "expected_mask", times: 1 },
  ]
  const inOrder = (disconnects: Disconnect[]) =>
    disconnects.map(({ what, code, reason, times }) => ({ what, code, reason, times })).sort(byKind)
  t.same(inOrder(totals), [...expected].sort(byKind))
  t.same(inOrder(last), [...expected].sort(byKind), "each as one, since they came at about the same time")
  t.match(last.at(-1), { reason: "wrong_path", first_at: /Z$/, last_at: /Z$/ }, "the newest first")
  t.notMatch(JSON.stringify({ totals, last }), /made up|user:8|evil|432/)
})

t.test("the report with the largest users and channels only", async (t) => {
  const { relay } = await start(t)
  await relay.connect({ sub: "7" }, "?channels=committee:1")
  await relay.connect({ sub: "8" }, "?channels=committee:1,committee:2")
  await relay.connect({ sub: "8" }, "?channels=committee:1,committee:2")
  t.match((await report(relay, "?top=1")).connections, { users: 2, channels: 2 })
  t.same((await report(relay, "?top=1")).connections.by_user, { 8: 2 })
  t.same((await report(relay, "?top=1")).connections.by_channel, { "committee:1": 3 })
  for (const query of ["", "?top=", "?top=x", "?top=-1", "?top=1&top=1"])
    t.same((await report(relay, query)).connections.by_user, { 7: 1, 8: 2 }, query)
})

t.test("another start is another instance, whose totals begin anew", async (t) => {
  const { relay, db } = await start(t)
  await relay.connect()
  const before = await report(relay)
  const again = await report(relay)
  t.equal(again.instance, before.instance)
  t.ok(again.uptime_seconds > before.uptime_seconds)
  await relay.stop()
  const after = await report(await startRelay(t, db))
  t.not(after.instance, before.instance)
  t.same([before.totals.connects, after.totals.connects], [1, 0])
})

t.test("users and channels named as what every object has are counted as any other", async (t) => {
  const { relay } = await start(t)
  await relay.connect({ sub: "__proto__" }, "?channels=constructor")
  await relay.connect({ sub: "toString" }, "?channels=constructor")
  const { by_channel } = (await report(relay)).connections
  t.strictSame(Object.entries(by_channel), [["constructor", 2]])
  const text = await (await get(relay, REPORT, admin())).text()
  t.match(text, '"__proto__":1')
  t.match(text, '"toString":1')
})

t.test("paths with and without a slash at their end, and other methods", async (t) => {
  const { relay } = await start(t)
  for (const [path, authorization, type] of [
    [REPORT, admin(), "application/json"],
    [REPORT.slice(0, -1), admin(), "application/json"],
    ["/health/live", undefined, "application/json"],
    ["/health/live/", undefined, "application/json"],
    ["/health/ready", undefined, "application/json"],
    ["/health/ready/", undefined, "application/json"],
    ["/metrics", undefined, "text/plain"],
    ["/", undefined, "text/html"],
  ] as const) {
    const answer = await get(relay, path, authorization)
    t.equal(answer.status, 200, path)
    t.match(answer.headers.get("content-type"), type, path)
    const head = await get(relay, path, authorization, "HEAD")
    t.equal(head.status, 200, `HEAD ${path}`)
    t.equal(await head.text(), "")
    for (const method of ["POST", "PUT", "DELETE"]) {
      const other = await get(relay, path, authorization, method)
      t.equal(other.status, 404, `${method} ${path}`)
      t.same(await other.json(), { error: "not found" })
    }
  }
  t.equal((await get(relay, REPORT, undefined, "HEAD")).status, 401)
})

t.test("the probes say whether it lives and whether it is ready", async (t) => {
  const { relay } = await start(t)
  t.same(await (await get(relay, "/health/live")).json(), { status: "live" })
  t.same(await (await get(relay, "/health/ready")).json(), { status: "ready" })
  await relay.relay.stop()
  t.same(await (await get(relay, "/health/live")).json(), { status: "live" })
  const ready = await get(relay, "/health/ready")
  t.equal(ready.status, 503)
  t.same(await ready.json(), { status: "not_ready" })
  const found = await report(relay)
  t.equal(found.status, "degraded")
  t.ok(found.problems.includes("stopping"))
})

t.test("a database that is gone shows in the probe and the report, which both still answer", async (t) => {
  const { relay, db } = await start(t)
  await until("it has looked at the tables", async () => (await report(relay)).tables.length === 3)
  const session = await db.session(db.superuserUrl.replace(`/${db.name}`, "/postgres"))
  await session.query(`alter database ${db.name} with allow_connections false`)
  await session.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", [db.name])
  await until("not ready", async () => (await get(relay, "/health/ready")).status === 503)
  t.equal((await get(relay, "/health/live")).status, 200)
  const found = await report(relay)
  t.match(found, { status: "degraded", problems: [String], tables: [{}, {}, {}] })
  t.notMatch(JSON.stringify(found), "tests@", "no password")
  await session.query(`alter database ${db.name} with allow_connections true`)
  await until("ready again", async () => (await get(relay, "/health/ready")).status === 200)
})

t.test("the metrics tell what happened", async (t) => {
  const began = performance.now()
  const { relay, db } = await start(t)
  const client = await relay.connect()
  const other = await relay.connect({ sub: "8" }, "?channels=committee:1")
  await db.query("insert into vote (committee_id) values (1), (2); insert into guarantee default values")
  await db.query("delete from guarantee; select relay.broadcast('nobody:here', '1')")
  await client.count(4)
  other.socket.send(Buffer.alloc(1))
  await other.closed
  client.send("?")
  client.send({ type: "publish" })
  client.send({ type: "ping" })
  await client.first("pong", ({ type }) => type === "pong")
  const refused = await relay.open("/ws?token=x")
  await refused.closed
  await until("all is read", async () => ((await metrics(relay)).get("relay_unrouted_total") ?? 0) === 1)
  const found = await metrics(relay)
  const expected: Record<string, number> = {
    relay_connections: 1,
    relay_users: 1,
    relay_lanes: 1,
    relay_listener_up: 1,
    relay_feed_up: 1,
    relay_bells_skipped_total: 0,
    relay_tables_with_problems: 0,
    relay_problems: 0,
    'relay_connects_total{result="accepted"}': 3,
    'relay_auth_failures_total{reason="invalid"}': 1,
    'relay_closes_total{code="4500"}': 1,
    'relay_closes_total{code="4501"}': 1,
    'relay_client_frames_total{type="ping"}': 1,
    'relay_client_frames_total{type="invalid"}': 2,
    'relay_client_frames_total{type="binary"}': 1,
    'relay_client_errors_total{code="bad_message"}': 1,
    'relay_client_errors_total{code="unknown_type"}': 1,
    'relay_events_total{table="public.vote",op="insert"}': 2,
    'relay_events_total{table="public.guarantee",op="insert"}': 1,
    'relay_events_total{table="public.guarantee",op="delete"}': 1,
    'relay_events_total{table="",op="message"}': 1,
    relay_unrouted_total: 1,
    relay_deliveries_total: 5,
    relay_listener_reconnects_total: 0,
    relay_feed_reconnects_total: 0,
    relay_batch_changes_sum: 5,
  }
  t.same(Object.fromEntries(Object.keys(expected).map((name) => [name, found.get(name)])), expected)
  const lag = found.get("relay_feed_lag_seconds") ?? Number.NaN
  t.ok(lag >= 0 && lag * 1_000 <= performance.now() - began, `${lag} s`)
  const modes = ["quiet", "awake", "tail"].map((mode) => found.get(`relay_bell_mode{mode="${mode}"}`))
  t.same([...modes].sort(), [0, 0, 1], "the bell is in one mode")
  t.ok((found.get("relay_read_seconds_count") ?? 0) > 0)
  t.ok((found.get("relay_fanout_seconds_count") ?? 0) > 0)
  t.ok((found.get('relay_reads_total{why="bell"}') ?? 0) > 0)
  t.ok((found.get("process_cpu_seconds_total") ?? 0) > 0)
})

t.test("with METRICS_TOKEN the metrics are for who has it", async (t) => {
  const secret = "what the metrics want to be asked with"
  const { relay } = await start(t, { METRICS_TOKEN: secret })
  for (const other of [undefined, "Bearer", `Bearer ${secret}x`, secret, admin()]) {
    const refused = await get(relay, "/metrics", other)
    t.equal(refused.status, 401, `asked with ${other}`)
    t.equal(refused.headers.get("www-authenticate"), "Bearer")
    t.same(await refused.json(), { error: "not the METRICS_TOKEN" })
  }
  const answer = await get(relay, "/metrics", `Bearer ${secret}`)
  t.match(await answer.text(), /^relay_ready 1$/m)
})

t.test("what a client sends cannot make new series", async (t) => {
  const { relay } = await start(t)
  const series = async () => [...(await metrics(relay)).keys()].filter((name) => name.startsWith("relay_"))
  const before = (await series()).length
  for (let round = 0; round < 15; round++) {
    const client = await relay.connect({ sub: `user${round}` }, `?channels=room:${round}`)
    client.send({ type: `made_up_${round}` })
    client.send({ type: "subscribe", channels: [`hall:${round}`] })
    await client.first("subscribed", ({ type }) => type === "subscribed")
    client.socket.close(4600 + round, "own code")
    await client.closed
  }
  t.ok((await series()).length < before + 10)
  t.notMatch((await series()).join("\n"), /room|hall|made_up|user1|46\d\d/)
})

t.test("a page and an API that a browser cannot be turned against", async (t) => {
  const { relay } = await start(t)
  relay.relay.metrics.observe("relay_broken", "fails when it is read", () => {
    throw new Error("secret detail")
  })
  const paths: [path: string, status: number, cache: string][] = [
    ["/", 200, "no-cache"],
    ["/pages/dashboard/app.js", 200, "no-cache"],
    ["/style.css", 200, "no-cache"],
    ["/icon.svg", 200, "no-cache"],
    ["/page.json", 200, "no-store"],
    ["/health/live", 200, "no-store"],
    ["/health/ready", 200, "no-store"],
    ["/metrics", 500, "no-store"],
    ["/nowhere", 404, "no-store"],
    [REPORT, 401, "no-store"],
  ]
  for (const [path, status, cache] of paths) {
    const answer = await get(relay, path)
    t.equal(answer.status, status, path)
    const { headers } = answer
    t.equal(headers.get("cache-control"), cache, path)
    t.equal(headers.get("x-powered-by"), null, path)
    t.equal(headers.get("server"), null, path)
    t.equal(headers.get("x-content-type-options"), "nosniff", path)
    t.equal(headers.get("x-frame-options"), "DENY", path)
    t.equal(headers.get("referrer-policy"), "no-referrer", path)
    t.equal(headers.get("cross-origin-opener-policy"), "same-origin", path)
    t.equal(headers.get("cross-origin-resource-policy"), "same-origin", path)
    t.match(headers.get("permissions-policy"), /camera=\(\), .*microphone=\(\)/, path)
    t.equal(headers.get("strict-transport-security"), null, path)
    t.equal(headers.get("access-control-allow-origin"), null, path)
    const policy = headers.get("content-security-policy")
    t.match(policy, /default-src 'none'.*frame-ancestors 'none'/, path)
    t.notMatch(policy, /unsafe|\*|data:|https?:/, path)
  }
})

/** The status of a path as it stands, which fetch would tidy up. */
const statusOf = (relay: TestRelay, path: string, headers: Record<string, string> = {}) =>
  new Promise<{ status: number | undefined; body: string }>((resolve, reject) => {
    const sent = request(relay.url, { path, headers }, (response) => {
      let body = ""
      response.on("data", (data) => {
        body += data
      })
      response.on("end", () => resolve({ status: response.statusCode, body }))
    })
    sent.on("error", reject)
    sent.end()
  })

t.test("paths that are nowhere, and paths that are none", async (t) => {
  const { relay } = await start(t)
  for (const path of [
    "/nowhere",
    "/api",
    "/.env",
    "/..",
    "/../package.json",
    "/..%2fpackage.json",
    "//health/live",
    "/page.json/x",
  ])
    t.same(await statusOf(relay, path), { status: 404, body: '{"error":"not found"}' }, path)
  for (const path of ["/%", "/%zz", "/%c0%af", "/api/utils/%ff", "/%00"]) {
    const { status, body } = await statusOf(relay, path)
    t.match(status, /^40[04]$/, path)
    t.match(Object.keys(JSON.parse(body)), ["error"], "no stack")
  }
})

t.test("a fault of the relay's own is no fault of the client", async (t) => {
  const { relay } = await start(t)
  relay.relay.metrics.observe("relay_broken", "fails when it is read", () => {
    throw new Error("secret detail")
  })
  const answer = await get(relay, "/metrics")
  t.equal(answer.status, 500)
  t.notMatch(await answer.text(), "secret")
})

t.test("a client that offers to upgrade to HTTP/2 is answered all the same", async (t) => {
  const { relay } = await start(t)
  const socket = connect({ port: Number(new URL(relay.url).port), host: "127.0.0.1" })
  t.teardown(() => socket.destroy())
  const answer = new Promise<string>((resolve) => socket.once("data", (data) => resolve(data.toString())))
  // As java.net.http.HttpClient and curl --http2 do by default.
  socket.write(
    "GET /health/live HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n",
  )
  t.match(await answer, /^HTTP\/1\.1 200 OK/)
})

t.test("no token reaches the log, the metrics, the report or an answer", async (t) => {
  const { relay, db } = await start(t, { LOG_LEVEL: "trace" })
  const tokens: string[] = []
  const marked = (claims: Record<string, unknown> = {}) => {
    const text = token({ jti: `marked${tokens.length}`, ...claims })
    tokens.push(text)
    return text
  }
  const bad = (text: string) => `${text.slice(0, -8)}AAAAAAAA`
  const clients = await Promise.all([
    relay.open(`/ws?token=${marked()}`),
    relay.open("/ws", { headers: { authorization: `Bearer ${marked()}` } }),
    relay.open("/ws", { protocols: ["commitcast.v1", `bearer.${marked()}`] }),
  ])
  for (const client of clients) await client.first("success", ({ type }) => type === "connection_success")
  const [first] = clients
  first.send({ type: "authenticate", token: marked() })
  first.send({ type: marked() })
  first.send({ type: "ping", token: marked() })
  first.send(`{"type":"authenticate","token":"${marked()}`)
  first.send({ type: "subscribe", channels: [marked()] })
  first.send({ type: "authenticate", token: marked({ sub: "8" }) })
  await first.first("the last answer", ({ code }) => code === "other_user")
  for (const path of [
    `/ws?token=${bad(marked())}`,
    `/ws?token=${marked({ exp: 1 })}`,
    `/ws?token=${marked()}&token=${marked()}`,
  ])
    await (await relay.open(path)).closed
  for (const path of [`/nowhere?token=${marked()}`, `/ws?channels=A&token=${marked()}`])
    await relay.open(path).catch(() => {})
  await relay.open(`/ws?token=${marked()}`, { headers: { origin: "https://evil.example" } }).catch(() => {})
  const answers = [
    await get(relay, REPORT, `Bearer ${marked({ role: "admin" })}`),
    await get(relay, REPORT, `Bearer ${marked()}`),
    await get(relay, REPORT, `Bearer ${bad(marked())}`),
    await get(relay, `/nowhere?token=${marked()}`),
    await get(relay, `/%zz?token=${marked()}`),
    await get(relay, "/metrics"),
  ]
  await db.query("insert into vote default values")
  await first.count(1)
  await relay.stop()
  const places = {
    log: JSON.stringify(relay.lines),
    answers: (await Promise.all(answers.map((answer) => answer.text()))).join("\n"),
    frames: clients.flatMap(({ texts }) => texts).join("\n"),
    metrics: await relay.relay.metrics.registry.metrics(),
  }
  t.ok(relay.lines.length > 10, "there is a log")
  for (const [place, text] of Object.entries(places)) {
    for (const secret of tokens) {
      const [, payload, signature] = secret.split(".") as [string, string, string]
      t.notOk(text.includes(payload) || text.includes(signature.slice(0, 20)), place)
    }
  }
})
