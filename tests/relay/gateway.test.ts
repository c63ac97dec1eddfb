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

/** Sends bytes as they are. @returns the status line, or "" if the connection just ends. */
async function raw(t: Test, relay: TestRelay, bytes: string): Promise<string> {
  const socket = await plain(t, relay.url)
  const answer = new Promise<string>((resolve) => {
    let text = ""
    socket.on("data", (data) => {
      text += data.toString("latin1")
      if (text.includes("\r\n")) resolve(text.slice(0, text.indexOf("\r\n")))
    })
    socket.on("end", () => resolve(text))
    socket.on("close", () => resolve(text))
  })
  socket.write(bytes, "latin1")
  const status = await answer
  socket.destroy()
  return status
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
  t.same(await (await fetch(`${relay.url}/page.json`)).json(), { wsPath: "/live/socket" })
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

t.test("malformed upgrades are refused and harm nobody", async (t) => {
  const { relay } = await start(t)
  const witness = await relay.connect()
  const requests: Array<[what: string, bytes: string, status: RegExp]> = [
    ["well formed", upgrade(GET), /^HTTP\/1\.1 101 /],
    ["absolute form", upgrade("GET http://relay.example/ws HTTP/1.1"), /^HTTP\/1\.1 101 /],
    ["no key", upgrade(GET, { "Sec-WebSocket-Key": null }), /^HTTP\/1\.1 400 /],
    ["a short key", upgrade(GET, { "Sec-WebSocket-Key": "abc" }), /^HTTP\/1\.1 400 /],
    ["no version", upgrade(GET, { "Sec-WebSocket-Version": null }), /^HTTP\/1\.1 400 /],
    ["version 7", upgrade(GET, { "Sec-WebSocket-Version": "7" }), /^HTTP\/1\.1 (400|426) /],
    ["another protocol", upgrade(GET, { Upgrade: "h2c" }), /^HTTP\/1\.1 (400|404|426) /],
    ["POST", upgrade("POST /ws HTTP/1.1"), /^HTTP\/1\.1 405 /],
    ["HTTP/1.0", upgrade("GET /ws HTTP/1.0"), /^HTTP\/1\.1 /],
    ["a bad subprotocol", upgrade(GET, { "Sec-WebSocket-Protocol": "a,,b" }), /^HTTP\/1\.1 400 /],
    ["a subprotocol twice", upgrade(GET, { "Sec-WebSocket-Protocol": "a, a" }), /^HTTP\/1\.1 400 /],
    ["two slashes", upgrade("GET // HTTP/1.1"), /^HTTP\/1\.1 40[04] /],
    ["two slashes and the path", upgrade("GET //ws HTTP/1.1"), /^HTTP\/1\.1 40[04] /],
    ["a host that is none", upgrade("GET http://[/ws HTTP/1.1"), /^HTTP\/1\.1 400 /],
    ["a port that is none", upgrade("GET http://a:99999/ws HTTP/1.1"), /^HTTP\/1\.1 400 /],
    ["authority form", upgrade("GET relay.example:80 HTTP/1.1"), /^HTTP\/1\.1 40[04] /],
    ["asterisk form", upgrade("OPTIONS * HTTP/1.1"), /^HTTP\/1\.1 40[04] /],
    ["a broken percent in the path", upgrade("GET /ws%zz HTTP/1.1"), /^HTTP\/1\.1 40[04] /],
    [
      "a broken percent in the query",
      upgrade("GET /ws?token=%zz&cursor=%&channels=% HTTP/1.1"),
      /^HTTP\/1\.1 400 /,
    ],
    ["bytes that are no UTF-8 in the query", upgrade("GET /ws?cursor=%ff%fe HTTP/1.1"), /^HTTP\/1\.1 101 /],
    ["bytes beyond ASCII in the path", upgrade("GET /w\xe9 HTTP/1.1"), /^HTTP\/1\.1 40[04] /],
    ["a name that is no channel", upgrade("GET /ws?channels=A HTTP/1.1"), /^HTTP\/1\.1 400 /],
    ["huge headers", upgrade(GET, { "X-Huge": "x".repeat(70_000) }), /^HTTP\/1\.1 431 |^$/],
    ["a huge URL", upgrade(`GET /ws?cursor=${"x".repeat(70_000)} HTTP/1.1`), /^HTTP\/1\.1 431 |^$/],
    ["two lengths", upgrade(GET, { "Content-Length": "1", "content-length": "2" }), /^HTTP\/1\.1 400 |^$/],
    ["no host", upgrade(GET, { Host: null }), /^HTTP\/1\.1 (400|101) /],
    ["no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", /^HTTP\/1\.1 400 |^$/],
    ["garbage", "\r\n\r\n\0\0\0\r\n\r\n", /^HTTP\/1\.1 400 |^$/],
  ]
  for (const [what, bytes, status] of requests) {
    t.match(await raw(t, relay, bytes), status, what)
    t.equal((await fetch(`${relay.url}/health/live`)).status, 200, `alive after ${what}`)
  }
  witness.send({ type: "ping" })
  await witness.first("pong", ({ type }) => type === "pong")
  t.equal(relay.lines.filter(({ level }) => Number(level) >= 40).length, 0, "nothing to warn of")
})

/** The close code among the frames behind the answer to an upgrade. */
function closeCode(received: Buffer): number | undefined {
  let at = received.indexOf("\r\n\r\n") + 4
  while (at >= 4 && at + 4 <= received.length) {
    const short = received.readUInt8(at + 1)
    const header = short < 126 ? 2 : 4
    if (received.readUInt8(at) === 0x88) return received.readUInt16BE(at + header)
    at += header + (short < 126 ? short : received.readUInt16BE(at + 2))
  }
  return undefined
}

t.test("frames that break the WebSocket protocol end their own connection", async (t) => {
  const { relay } = await start(t)
  const masked = (first: number, payload: string | Buffer) =>
    Buffer.concat([Buffer.from([first, 0x80 | payload.length, 0, 0, 0, 0]), Buffer.from(payload)])
  const fragments = Array.from({ length: 20 }, (_, index) => masked(index === 0 ? 0x01 : 0x00, " "))
  const frames: Array<[what: string, frame: Buffer, code: number]> = [
    ["not masked", Buffer.from([0x81, 0x02, 0x7b, 0x7d]), 1002],
    ["a reserved bit", masked(0xc1, "{}"), 1002],
    ["an unknown opcode", masked(0x83, "{}"), 1002],
    ["a continuation of nothing", masked(0x80, "{}"), 1002],
    ["a ping in fragments", masked(0x09, "{}"), 1002],
    ["a close frame of one byte", masked(0x88, Buffer.from([3])), 1002],
    ["a close code that may not be sent", masked(0x88, Buffer.from([0x03, 0xed])), 1002],
    ["a length beyond any", Buffer.from([0x81, 0xff, ...Array(8).fill(255), 0, 0, 0, 0]), 1009],
    ["many fragments", Buffer.concat(fragments), 1008],
  ]
  for (const [what, frame, code] of frames) {
    const socket = await plain(t, relay.url)
    const found = new Promise<number | undefined>((resolve) => {
      let received = Buffer.alloc(0)
      socket.on("data", (data) => {
        received = Buffer.concat([received, data])
        if (closeCode(received) !== undefined) resolve(closeCode(received))
      })
      socket.on("end", () => resolve(undefined))
    })
    // Upgrade and frame in one packet: the frame is the head of the upgrade.
    socket.write(Buffer.concat([Buffer.from(upgrade(GET, { authorization: `Bearer ${token()}` })), frame]))
    t.equal(await found, code, what)
    socket.destroy()
  }
  await until("they are gone", () => relay.relay.status().hub.connections === 0)
  t.equal((await fetch(`${relay.url}/health/live`)).status, 200)
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
  await until("the relay has closed them", async () => (await count()) === 0, 3_000)
})

t.test("a relay that stops takes nobody in, and sends everybody away to come back", async (t) => {
  const { relay } = await start(t, { DRAIN_TIMEOUT_SECONDS: "1" })
  const client = await relay.connect()
  const deaf = await relay.connect()
  deaf.socket.pause()
  const stopped = relay.relay.stop()
  t.equal(await statusOf(relay, "/ws"), 503)
  t.match(await client.closed, { code: 4000, reason: "the relay is stopping" })
  await stopped
  await until("the deaf one was cut", () => relay.relay.status().hub.connections === 0, 1_000)
  t.equal((await fetch(`${relay.url}/health/ready`)).status, 503)
  t.equal((await fetch(`${relay.url}/health/live`)).status, 200)
})
