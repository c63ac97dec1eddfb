/** The upgrade: which requests become connections, and what becomes of the others. */

import { createServer } from "node:http"
import { type AddressInfo, connect, type Socket } from "node:net"
import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

/** A socket without any protocol; closed with the test. */
async function plain(t: Test, url: string): Promise<Socket> {
  const socket = connect({ port: Number(new URL(url).port), host: "127.0.0.1", allowHalfOpen: true })
  socket.on("error", () => {})
  t.teardown(() => socket.destroy())
  await new Promise((resolve) => socket.once("connect", resolve))
  return socket
}

const KEY = Buffer.alloc(16, 1).toString("base64")

/** An upgrade request as text; a header that is null is left out. */
function upgrade(line: string, headers: Record<string, string | null> = {}): string {
  const all: Record<string, string | null> = {
    Host: "relay.example",
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    ...headers,
  }
  const lines = Object.entries(all).filter(([, value]) => value !== null)
  return `${line}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`
}

const GET = "GET /ws HTTP/1.1"

async function statusOf(
  relay: TestRelay,
  path: string,
  headers: Record<string, string> = {},
): Promise<number> {
  const options = { headers: { authorization: `Bearer ${token()}`, ...headers } }
  const opened = relay.open(path, options).then(
    (client) => {
      client.socket.close()
      return 101
    },
    (error: Error) => Number(/\d{3}$/.exec(error.message)?.[0]),
  )
  return opened
}

t.test("only the path of the socket is upgraded", async (t) => {
  const { relay } = await start(t)
  for (const path of ["/ws", "/ws/", "/ws?a=b", "/ws/?a=b", "/./ws", "/x/../ws"])
    t.equal(await statusOf(relay, path), 101, path)
  for (const path of [
    "/",
    "/WS",
    "/ws/x",
    "/ws//",
    "/wss",
    "/w%73",
    "/health/live",
    "/api/utils/websocket/health/",
  ])
    t.equal(await statusOf(relay, path), 404, path)
})

t.test("the path can be another", async (t) => {
  const { relay } = await start(t, { WS_PATH: "/live/socket/" })
  t.equal(await statusOf(relay, "/live/socket"), 101)
  t.equal(await statusOf(relay, "/live/socket/"), 101)
  t.equal(await statusOf(relay, "/ws"), 404)
  t.same(await (await fetch(`${relay.url}/page.json`)).json(), {
    wsPath: "/live/socket",
    program: "npm run -s commitcast --",
  })
})

t.test("pages of other hosts may not connect unless they are allowed", async (t) => {
  const { relay } = await start(t, { ALLOWED_ORIGINS: "https://board.example, http://localhost:5173" })
  const host = new URL(relay.url).host
  const { port } = new URL(relay.url)
  for (const origin of [
    `http://${host}`,
    `https://${host}`,
    "https://board.example",
    "http://localhost:5173",
  ])
    t.equal(await statusOf(relay, "/ws", { origin }), 101, origin)
  for (const origin of [
    "null",
    "",
    "https://evil.example",
    "http://board.example",
    "https://board.example:444",
    "https://board.example.evil.example",
    "https://evil.example/https://board.example",
    `http://localhost:${port}`,
    "http://127.0.0.1",
    `http://127.0.0.1:${port}.evil.example`,
    `http://evil.example/@${host}`,
    "file://",
    "chrome-extension://abc",
    host,
  ])
    t.equal(await statusOf(relay, "/ws", { origin }), 403, origin)
  t.equal(await statusOf(relay, "/ws"), 101, "programs send none")
})

t.test("behind a proxy the own host is the one that the browser sees", async (t) => {
  const { relay } = await start(t)
  t.equal(await statusOf(relay, "/ws", { host: "votes.example", origin: "https://votes.example" }), 101)
  t.equal(await statusOf(relay, "/ws", { host: "votes.example", origin: "https://other.example" }), 403)
})

t.test("a refused page learns nothing and nothing is kept", async (t) => {
  const { relay } = await start(t)
  t.equal(await statusOf(relay, `/ws?token=${token()}`, { origin: "https://evil.example" }), 403)
  t.equal(relay.relay.status().hub.connections, 0)
  const { values } = await relay.relay.metrics.connects.get()
  t.same(
    values.map(({ labels, value }) => [labels.result, value]),
    [["origin", 1]],
  )
})

t.test("a message in the same packet as the upgrade is heard", async (t) => {
  const { relay } = await start(t)
  const socket = await plain(t, relay.url)
  const message = Buffer.from(JSON.stringify({ type: "ping", request: "early" }))
  const frame = Buffer.concat([Buffer.from([0x81, 0x80 | message.length, 0, 0, 0, 0]), message])
  const heard = new Promise<void>((resolve) => {
    let text = ""
    socket.on("data", (data) => {
      text += data.toString("latin1")
      if (text.includes('"request":"early"')) resolve()
    })
  })
  socket.write(Buffer.concat([Buffer.from(upgrade(GET, { authorization: `Bearer ${token()}` })), frame]))
  await heard
  t.pass()
})

t.test("a refused upgrade keeps no socket, even of a client that does not hang up", async (t) => {
  const { relay } = await start(t)
  const http = createServer((_request, response) => response.end())
  // Node itself would close what was left open.
  http.keepAliveTimeout = 600_000
  relay.relay.attach(http)
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve))
  t.teardown(() => {
    http.closeAllConnections()
    http.close()
  })
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`
  const count = () => new Promise<number>((resolve) => http.getConnections((_error, open) => resolve(open)))
  for (const [line, headers] of [
    ["GET /elsewhere HTTP/1.1", {}],
    [GET, { Origin: "https://evil.example" }],
    ["GET /ws?channels=A HTTP/1.1", {}],
    [GET, { "Sec-WebSocket-Key": "x" }],
    [GET, { Upgrade: "h2c" }],
  ] as const) {
    const socket = await plain(t, url)
    socket.resume()
    socket.write(upgrade(line, headers))
    await new Promise((resolve) => socket.once("end", resolve))
  }
  await until("the relay has closed them", async () => (await count()) === 0)
})

t.test("a relay that stops takes nobody in, and sends everybody away to come back", async (t) => {
  const { relay } = await start(t, { DRAIN_TIMEOUT_SECONDS: "1" })
  const client = await relay.connect()
  const deaf = await relay.connect()
  deaf.socket.pause()
  const stopped = relay.relay.stop()
  t.equal(await statusOf(relay, "/ws"), 503)
  t.match(await client.closed, { code: 4000, reason: "the relay is stopping: come back within 3 s" })
  await stopped
  await until("the deaf one was cut", () => relay.relay.status().hub.connections === 0)
  t.equal((await fetch(`${relay.url}/health/ready`)).status, 503)
  t.equal((await fetch(`${relay.url}/health/live`)).status, 200)
})
