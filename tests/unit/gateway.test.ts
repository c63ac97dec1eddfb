/** The gateway in front of sockets of the test's own making: they take and drain when the test says so. */

import { IncomingMessage, Server, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import { Duplex } from "node:stream"
import { setImmediate as turn } from "node:timers/promises"
import t from "tap"
import { readSettings } from "../../relay/config.ts"
import type { Connection } from "../../relay/fanout/connection.ts"
import { createGateway, type GatewayDeps } from "../../relay/gateway/gateway.ts"
import { CloseCode } from "../../relay/protocol/close-code.ts"
import { frameText } from "../../relay/protocol/frame.ts"
import { createDisconnects } from "../../relay/telemetry/disconnects.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { closing, frame, Opcode, readFrames, say, wordOf } from "../helpers/frame.ts"
import { fakeAudit, fakeAuth, fakeHub, fakeLimits, good, quietLog } from "../helpers/neighbours.ts"
import { until } from "../helpers/wait.ts"

/** A client's side of a socket that carries bytes as far as the test lets it. */
class FakeSocket extends Duplex {
  readonly #written: Buffer[] = []
  #taken: (() => void) | undefined
  stuffed = false

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, taken: () => void): void {
    this.#written.push(chunk)
    if (this.stuffed) this.#taken = taken
    else taken()
  }

  /** Takes what it was handed, and all that comes. */
  drain(): void {
    this.stuffed = false
    this.#taken?.()
  }

  get #answer(): Buffer {
    return Buffer.concat(this.#written)
  }

  get status(): number {
    return Number(this.#answer.subarray(9, 12).toString())
  }

  /** The frames that the relay has sent, in words. */
  get sent(): string[] {
    const answer = this.#answer
    return readFrames(answer.subarray(answer.indexOf("\r\n\r\n") + 4)).map(wordOf)
  }
}

function start(t: { teardown(act: () => void): void }, more: Partial<GatewayDeps> = {}) {
  const all = {
    hub: fakeHub(),
    auth: fakeAuth(),
    limits: fakeLimits(),
    audit: fakeAudit(),
    disconnects: createDisconnects(),
  }
  let now = 1_000
  const connections: Connection[] = []
  const track = (connection: Connection) => void connections.push(connection)
  const gateway = createGateway({
    ...all,
    hub: { ...all.hub, track },
    revocations: { judge: (result) => result },
    log: quietLog,
    metrics: createMetrics(),
    settings: {
      path: "/ws",
      allowedOrigins: [],
      allowedHosts: [],
      queryToken: false,
      maxErrors: 20,
      heartbeatMs: 20_000,
    },
    clock: () => now,
    ...more,
  })
  const http = new Server()
  gateway.attach(http)

  /** An upgrade, with a token in it. */
  function upgrade(more: Record<string, string> = {}): FakeSocket {
    const socket = new FakeSocket()
    t.teardown(() => socket.destroy())
    const request = new IncomingMessage(socket as unknown as Socket)
    const headers = {
      host: "relay.example",
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": Buffer.alloc(16, 1).toString("base64"),
      authorization: "Bearer first",
      ...more,
    }
    const headersDistinct = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name, [value]]),
    )
    Object.assign(request, { method: "GET", url: "/ws", httpVersion: "1.1", headers, headersDistinct })
    http.emit("upgrade", request, socket, Buffer.alloc(0))
    return socket
  }

  return {
    ...all,
    gateway,
    upgrade,
    connections,
    pass(ms: number) {
      now += ms
    },
    async connect() {
      const socket = upgrade()
      await all.auth.answer(good("7"))
      return { socket, connection: connections.at(-1) as Connection }
    },
  }
}

const pong = frame("", { opcode: Opcode.pong })
const CHUNK = frameText(JSON.stringify({ type: "checkpoint", more: "x".repeat(100_000) }))

t.test("a socket that has drained is handed what waited", async (t) => {
  const { socket, connection } = await start(t).connect()
  socket.stuffed = true
  connection.push([CHUNK, CHUNK, CHUNK])
  t.same(socket.sent, ["connection_success", "checkpoint"])
  socket.drain()
  await until("all is sent", () => socket.sent.length === 4)
  t.same(socket.sent.slice(2), ["checkpoint", "checkpoint"])
})

t.test("a socket that drains while it closes is handed nothing more", async (t) => {
  const { connect, hub } = start(t)
  const { socket, connection } = await connect()
  socket.stuffed = true
  // Two of them are handed to the socket; the third waits.
  connection.push([CHUNK, CHUNK, CHUNK])
  // The gateway has seen it drain, and the connection waits for its turn to write.
  socket.once("drain", () => connection.close(CloseCode.drain, "the relay is stopping"))
  socket.drain()
  await until("it is closed", () => socket.sent.includes("close 4000"))
  await turn()
  await turn()
  t.same(socket.sent, ["connection_success", "checkpoint", "checkpoint", "close 4000"])
  t.same(hub.asked.slice(-1), ["release"])
})

t.test(
  "a pong that comes with another after the relay was late counts for its connection alone",
  async (t) => {
    const { connect, limits, pass } = start(t)
    const { socket, connection } = await connect()
    pass(60_000)
    socket.push(pong)
    await turn()
    t.same(limits.asked, ["addSocket 192.0.2.1"], "the first counts for nobody")
    pass(1)
    socket.push(pong)
    await turn()
    t.same(limits.asked.slice(1), ["takeFrame connection"])
    socket.push(Buffer.concat([say({ type: "ping" }), frame("", { opcode: Opcode.ping })]))
    await turn()
    t.same(limits.asked.slice(2), ["takeFrame user", "takeFrame user"])
    pass(10_000)
    socket.push(pong)
    await turn()
    t.equal(limits.asked.length, 4, "half a heartbeat later one is an answer again")
    t.equal(connection.lastHeardAt, 71_001)
  },
)

t.test("a client that sends too much is closed and no longer read", async (t) => {
  const all = start(t)
  let frames = 0
  const limits = { ...all.limits, takeFrame: () => ++frames <= 2 }
  const { connect } = start(t, { limits })
  const { socket } = await connect()
  for (let n = 1; n <= 5; n++) socket.push(say({ type: "ping", request: n }))
  socket.push(pong)
  await turn()
  t.same(socket.sent.slice(1), ["pong 1", "pong 2", "close 4013"])
  t.equal(frames, 3)
})

t.test(
  "a client that the stop finds with its token unchecked is answered, and nobody comes after it",
  async (t) => {
    const { gateway, upgrade, auth, hub, disconnects, connections } = start(t)
    const [first, second] = [upgrade(), upgrade()]
    gateway.stop()
    const late = upgrade()
    await turn()
    t.same([first.status, second.status, late.status], [101, 101, 503])
    await auth.answer(good("7"))
    t.same(first.sent, ["connection_success"], "the drain will come to it")
    connections[1]?.close(CloseCode.drain, "the relay is stopping")
    await auth.answer(good("7"))
    t.same(second.sent, ["close 4000"])
    t.equal(hub.asked.filter((asked) => asked.startsWith("join")).length, 1)
    t.match(disconnects.report().totals, [{ what: "refused", code: 503, reason: "stopping", times: 1 }])
  },
)

t.test("a client that hangs up while its token is checked joins nothing", async (t) => {
  const { upgrade, auth, hub, audit } = start(t)
  const socket = upgrade()
  socket.push(closing(1000))
  socket.push(null)
  await until("the hub forgets it", () => hub.asked.includes("forget"))
  await auth.answer(good("7"))
  t.same(hub.asked, ["forget"])
  t.same(audit.names(), ["closed"])
})

t.test("how a connection ended, and that it is forgotten once", async (t) => {
  const ways: Array<[end: (socket: FakeSocket, connection: Connection) => void, closed: object]> = [
    [
      (socket) => {
        socket.push(closing(4321, "enough"))
        socket.push(null)
      },
      { code: 4321, reason: "enough", by: "client" },
    ],
    [(socket) => socket.destroy(), { code: 1006, reason: "", by: "nobody" }],
    [
      (socket) => {
        socket.push(frame("x", { mask: null }))
        socket.push(null)
      },
      { code: 1006, reason: "WS_ERR_EXPECTED_MASK", by: "relay" },
    ],
    [
      (socket, connection) => {
        connection.close(CloseCode.noPong, "no pong")
        socket.push(closing(4012))
        socket.push(null)
      },
      { code: 4012, reason: "no pong", by: "relay" },
    ],
  ]
  for (const [end, closed] of ways) {
    const { connect, audit, limits, hub, pass } = start(t)
    const { socket, connection } = await connect()
    pass(5_000)
    end(socket, connection)
    await until("the hub forgets it", () => hub.asked.includes("forget"))
    t.match(audit.events.at(-1), { event: "closed", ...closed, openMs: 5_000 })
    t.same(
      limits.asked.filter((asked) => asked.includes("Socket")),
      ["addSocket 192.0.2.1", "removeSocket 192.0.2.1"],
    )
    t.equal(hub.asked.filter((asked) => asked === "forget").length, 1)
  }
})

t.test("a question that the program's own server has answered meanwhile is left alone", async (t) => {
  const { gateway, auth } = start(t)
  const request = new IncomingMessage(new FakeSocket() as unknown as Socket)
  const headers = { host: "relay.example", authorization: "Bearer first" }
  const headersDistinct = { host: [headers.host], authorization: [headers.authorization] }
  Object.assign(request, { method: "GET", url: "/ws", httpVersion: "1.1", headers, headersDistinct })
  const response = new ServerResponse(request)
  t.ok(gateway.answer(request, response))
  t.same(auth.checked(), ["first"])
  response.writeHead(504).end()
  const broken: unknown[] = []
  const note = (error: unknown) => void broken.push(error)
  process.on("unhandledRejection", note)
  t.teardown(() => process.off("unhandledRejection", note))
  await auth.answer(good("7"))
  await turn()
  t.equal(response.statusCode, 504)
  t.same(broken, [])
})

t.test("a refused origin is logged once a minute, with what was refused meanwhile", async (t) => {
  const lines: Array<Record<string, unknown>> = []
  const settings = readSettings({ JWT_SECRET: "a secret of the tests, which is long enough" })
  const log = createLog(settings, { write: (line) => lines.push(JSON.parse(line)) })
  const { upgrade, pass } = start(t, { log })
  const from = (origin: string) => t.equal(upgrade({ origin }).status, 403)
  from("https://app.example")
  from("https://app.example")
  from(`https://${"x".repeat(200)}`)
  pass(59_999)
  for (let n = 0; n < 10; n++) from(`https://\u009b${n}.example`)
  t.equal(lines.length, 1)
  pass(1)
  from("https://app.example")
  pass(60_000)
  from("https://late.example")
  t.match(lines, [
    {
      level: 40,
      event: "origin_refused",
      origins: ["https://app.example"],
      host: "relay.example",
      times: 1,
      msg: /ALLOWED_ORIGINS/,
    },
    { times: 13, origins: ["https://app.example", /^https:\/\/x{92}$/, "https://?0.example", /\?1/, /\?2/] },
    { times: 1, origins: ["https://late.example"] },
  ])
  t.equal(lines.length, 3)
})
