/** Plain requests for the socket's path, by which a browser's script learns why its upgrades come to nothing. */

import { request } from "node:http"
import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { GET, openRaw, upgrade, whenEnded } from "../helpers/raw.ts"
import { launchRelay, metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"

const PAGE = "https://board.example"
const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return startRelay(t, db, { ALLOWED_ORIGINS: PAGE, ...settings })
}

interface Answer {
  status: number
  headers: Record<string, unknown>
  body: { error: string; message: string; close_code?: number }
}

/** fetch sets Host and Origin by itself. */
function ask(
  relay: TestRelay,
  path = "/ws",
  headers: Record<string, string> = {},
  method = "GET",
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(relay.url + path, { method, headers, agent: false }, async (response) => {
      let text = ""
      for await (const chunk of response) text += chunk
      const { statusCode: status = 0, headers } = response
      resolve({ status, headers, body: text === "" ? undefined : JSON.parse(text) })
    })
    asked.on("error", reject)
    asked.end()
  })
}

/** What an upgrade of the same is answered, before it is one. */
async function refusalOf(t: Test, relay: TestRelay, path: string, headers: Record<string, string> = {}) {
  const client = await openRaw(t, relay.url)
  client.send(upgrade(`GET ${path} HTTP/1.1`, headers))
  await whenEnded(client)
  const text = client.received().toString()
  const [head = "", body = ""] = text.split("\r\n\r\n")
  return { status: Number(head.slice(9, 12)), head, body: JSON.parse(body) }
}

t.test("without an upgrade the path of the socket says what it is", async (t) => {
  const relay = await start(t)
  for (const path of ["/ws", "/ws/", "/ws?channels=committee:1"]) {
    const { status, headers, body } = await ask(relay, path)
    t.equal(status, 426, path)
    t.match(headers, {
      upgrade: "websocket",
      "content-type": /^application\/json/,
      "cache-control": "no-store",
    })
    t.match(body, {
      error: "upgrade_required",
      message: /an upgrade would be let in: connect with a WebSocket/,
    })
  }
  t.match(await ask(relay, "/ws", {}, "HEAD"), { status: 426, body: undefined })
  t.match(await ask(relay, "/ws", {}, "POST"), { status: 405, headers: { allow: "GET" } })
  t.equal((await ask(relay, "/ws/x")).status, 404)
  const stripped = {
    "sec-websocket-key": Buffer.alloc(16, 1).toString("base64"),
    "sec-websocket-version": "13",
  }
  t.match((await ask(relay, "/ws", stripped)).body, {
    error: "upgrade_stripped",
    message: /without its headers Upgrade and Connection/,
  })
})

t.test("a question is answered as the upgrade is", async (t) => {
  const cases: Array<
    [
      error: string,
      status: number,
      path: string,
      headers?: Record<string, string>,
      settings?: Record<string, string>,
    ]
  > = [
    ["origin", 403, "/ws", { Origin: "https://evil.example" }],
    ["origin", 403, "/ws", { Origin: "null" }],
    ["bad_request", 400, "/ws?channels=A"],
    ["connections_per_address", 429, "/ws", {}, { MAX_CONNECTIONS_PER_ADDRESS: "1" }],
    ["connections", 503, "/ws", {}, { MAX_CONNECTIONS: "1" }],
    ["upgrade_rate_per_address", 429, "/ws", {}, { MAX_UPGRADE_RATE_PER_ADDRESS: "0.2" }],
    ["upgrade_rate", 503, "/ws", {}, { MAX_UPGRADE_RATE: "0.2" }],
  ]
  for (const [error, status, path, headers = {}, settings] of cases) {
    // A clock that stands: no bucket fills again.
    const relay = await startRelay(t, await database(t), settings, { clock: () => 0 })
    await relay.connect()
    const asked = await ask(relay, path, { Host: "relay.example", ...headers })
    const refused = await refusalOf(t, relay, path, headers)
    t.match(asked, { status, body: { error } }, error)
    t.same({ status: refused.status, body: refused.body }, { status: asked.status, body: asked.body }, error)
    t.match(refused.body.message, /^[A-Z].{20,}\.$/, "it is a sentence")
    t.equal(/^Retry-After: (.*)\r?$/im.exec(refused.head)?.[1], asked.headers["retry-after"], error)
    await relay.stop()
  }
})

t.test("a relay that cannot serve yet, or no longer, says so", async (t) => {
  const db = await database(t)
  const relay = await launchRelay(t, { url: db.url.replace(/\/[^/]*$/, "/nowhere") })
  t.match(await ask(relay), { status: 503, headers: { "retry-after": "1" }, body: { error: "not_ready" } })
  const stopped = relay.relay.stop()
  t.match(await ask(relay), { status: 503, body: { error: "stopping" } })
  await stopped
})

t.test("what the connection would be closed with is said too, and counted as it is there", async (t) => {
  const relay = await start(t, { MAX_CHANNELS: "2" })
  const good = token({ committees: [1] })
  for (const [path, status, close_code, reason] of [
    ["/ws?token=x", 401, 4500, "invalid token"],
    [`/ws?token=${token({ exp: 1 })}`, 401, 4005, "token expired"],
    [`/ws?token=${good}&token=${good}`, 400, 4501, "more than one token"],
    [`/ws?where=${encodeURIComponent("[]")}`, 400, 4501, "where"],
    [`/ws?token=${good}&channels=committee:1,committee:2`, 403, 4507, "channel not allowed: committee:2"],
    [`/ws?token=${token()}&channels=a:1,a:2,a:3`, 400, 4505, "too many channels"],
  ] as const) {
    const { body, ...answer } = await ask(relay, path)
    t.equal(answer.status, status, reason)
    t.match(body, { error: "would_be_closed", close_code }, reason)
    t.match(body.message, reason)
    const client = await relay.open(path)
    t.match(await client.closed, { code: close_code }, reason)
  }
  t.equal((await ask(relay, `/ws?token=${good}&channels=committee:1`)).status, 426)
  t.equal((await ask(relay, "/ws", { Authorization: "Bearer x" })).status, 401)
  t.equal(await metricOf(relay, "relay_auth_failures_total", 'reason="expired"'), 2)
  t.equal(await metricOf(relay, "relay_questions_total", 'result="would_be_closed"'), 7)
})

t.test(
  "the page of an allowed origin can read the answer, that of another only why it is none",
  async (t) => {
    const relay = await start(t)
    for (const path of ["/ws", "/ws?token=x", "/ws?channels=A"]) {
      const { headers } = await ask(relay, path, { Origin: PAGE })
      t.match(headers, { "access-control-allow-origin": PAGE, vary: "Origin" }, path)
      t.equal(headers["access-control-allow-credentials"], undefined)
    }
    const evil = { Origin: "https://evil.example" }
    const answers = await Promise.all(
      ["/ws", `/ws?token=${token()}`, "/ws?token=x", "/ws?where=[]"].map((path) => ask(relay, path, evil)),
    )
    for (const { headers, body } of answers) {
      t.equal(headers["access-control-allow-origin"], "*")
      t.same(body, answers[0]?.body, "whatever it asks")
    }
    t.match(answers[0]?.body, { error: "origin", message: /ALLOWED_ORIGINS/ })
    t.equal((await ask(relay, "/health/live", evil)).headers["access-control-allow-origin"], undefined)

    const preflight = {
      "Access-Control-Request-Method": "GET",
      "Access-Control-Request-Headers": "authorization",
    }
    t.match(await ask(relay, "/ws", { Origin: PAGE, ...preflight }, "OPTIONS"), {
      status: 204,
      headers: { "access-control-allow-origin": PAGE, "access-control-allow-headers": "Authorization" },
    })
    const refused = await ask(relay, "/ws", { ...evil, ...preflight }, "OPTIONS")
    t.equal(refused.headers["access-control-allow-headers"], undefined)
  },
)

t.test(
  "a page of the host that the browser sees names its origin itself, since browsers do not",
  async (t) => {
    const relay = await start(t)
    const seen = { Host: "relay.internal:8080" }
    t.equal((await ask(relay, "/ws", seen)).status, 426)
    t.equal((await ask(relay, `/ws?origin=${PAGE}`, seen)).status, 426)
    t.match(await ask(relay, "/ws?origin=https://votes.example", seen), {
      status: 403,
      body: { error: "origin", message: /pass the Host header on/ },
    })
    const refusals = () => relay.lines.filter(({ event }) => event === "origin_refused")
    t.same(refusals(), [], "nobody can have a page logged that was not refused")
    t.equal(
      (await ask(relay, `/ws?origin=${PAGE}`, { Origin: "https://evil.example" })).status,
      403,
      "it never allows what the header does not",
    )
    t.match(refusals(), [{ origins: ["https://evil.example"], times: 1 }])
  },
)

t.test("a picture or a frame in another site's page takes no upgrades from the visitor", async (t) => {
  const settings = { MAX_UPGRADE_RATE_PER_ADDRESS: "0.2", ALLOWED_ORIGINS: PAGE }
  const relay = await startRelay(t, await database(t), settings, { clock: () => 0 })
  for (const site of ["cross-site", "same-site"])
    t.match(await ask(relay, `/ws?token=${token()}`, { "Sec-Fetch-Site": site }), {
      status: 403,
      headers: { "access-control-allow-origin": undefined },
      body: { error: "origin", message: /open the address itself/ },
    })
  t.equal((await ask(relay, "/ws", { "Sec-Fetch-Site": "cross-site", Origin: PAGE })).status, 426)
  const own = await startRelay(t, await database(t), settings, { clock: () => 0 })
  t.equal((await ask(own, "/ws", { "Sec-Fetch-Site": "none" })).status, 426, "in the address bar")
})

t.test("questions count as upgrades do, and hold nothing", async (t) => {
  const relay = await startRelay(
    t,
    await database(t),
    { MAX_UPGRADE_RATE_PER_ADDRESS: "1" },
    { clock: () => 0 },
  )
  const statuses: number[] = []
  for (let n = 0; n < 7; n++) statuses.push((await ask(relay)).status)
  t.same(statuses, [426, 426, 426, 426, 426, 429, 429])
  t.match(await refusalOf(t, relay, "/ws"), { status: 429 })
  t.equal(relay.relay.status().hub.connections, 0)
  t.equal(await metricOf(relay, "relay_connects_total", 'result="upgrade_rate_per_address"'), 1)
})

t.test("what cannot be read at all has an answer too, which any page may read", async (t) => {
  const relay = await start(t)
  for (const [bytes, status, error] of [
    [upgrade(`GET /ws?where=${"x".repeat(28_000)} HTTP/1.1`), 431, "too_long"],
    [upgrade(GET).replace("Host:", "Host"), 400, "bad_request"],
  ] as const) {
    const client = await openRaw(t, relay.url)
    client.send(bytes)
    await whenEnded(client)
    const [head = "", body = ""] = client.received().toString().split("\r\n\r\n")
    t.match(head, `HTTP/1.1 ${status} `)
    t.match(head, "Access-Control-Allow-Origin: *")
    t.match(JSON.parse(body), { error, message: /^[A-Z].*\.$/ })
  }
})
