/** The one promise about ws that the relay relies on: whole frames of ours may go between its own. */

import assert from "node:assert/strict"
import { randomBytes } from "node:crypto"
import { createServer } from "node:http"
import { type AddressInfo, connect, type Socket } from "node:net"
import { type Duplex, PassThrough } from "node:stream"
import fc from "fast-check"
import t, { type Test } from "tap"
import { WebSocket, WebSocketServer } from "ws"
import { createWire, type Wire } from "../../relay/fanout/wire.ts"
import { frameText, PING_FRAME } from "../../relay/protocol/frame.ts"
import { until } from "../helpers/wait.ts"

interface Side {
  socket: Duplex
  websocket: WebSocket
  wire: Wire
  /** How often the wire said that it has drained. */
  drains: () => number
  /** How many messages ws was given to frame. */
  sends: () => number
}

interface Setup {
  /** Whether compression is agreed on. */
  compressed?: boolean
  /** What the relay takes for the socket of the upgrade. */
  taken?: (socket: Duplex) => Duplex
}

/** A server as the gateway sets it up. @returns its port, and the next connection's end of it. */
async function serve(
  t: Test,
  { compressed = false, taken = (socket) => socket }: Setup = {},
): Promise<{ port: number; next: () => Promise<Side> }> {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: compressed && { threshold: 0 },
  })
  const http = createServer()
  const waiting: Array<(side: Side) => void> = []
  const sides: Side[] = []
  http.on("upgrade", (request, socket, head) => {
    server.handleUpgrade(request, socket, head, (websocket) => {
      websocket.on("error", () => {})
      let drained = 0
      let sent = 0
      const send = websocket.send.bind(websocket) as (...args: unknown[]) => void
      websocket.send = (...args: unknown[]) => {
        sent++
        send(...args)
      }
      const wire = createWire(taken(socket), websocket, () => drained++)
      const side = { socket, websocket, wire, drains: () => drained, sends: () => sent }
      const take = waiting.shift()
      if (take === undefined) sides.push(side)
      else take(side)
    })
  })
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve))
  t.teardown(() => {
    http.closeAllConnections()
    http.close()
  })
  const next = () => {
    const side = sides.shift()
    return side === undefined ? new Promise<Side>((resolve) => waiting.push(resolve)) : Promise.resolve(side)
  }
  return { port: (http.address() as AddressInfo).port, next }
}

interface Frame {
  kind: "message" | "ping" | "pong"
  text: string
}

/** A client of ws with everything that it received, and the server's end. */
async function pair(t: Test, setup: Setup = {}) {
  const { port, next } = await serve(t, setup)
  const client = new WebSocket(`ws://127.0.0.1:${port}/`, { perMessageDeflate: setup.compressed ?? false })
  const frames: Frame[] = []
  let wanted = 0
  let enough = () => {}
  const note = (kind: Frame["kind"]) => (data: unknown) => {
    frames.push({ kind, text: String(data) })
    if (frames.length >= wanted) enough()
  }
  client.on("message", note("message"))
  client.on("ping", note("ping"))
  client.on("pong", note("pong"))
  t.teardown(() => client.terminate())
  await new Promise((resolve) => client.once("open", resolve))
  const side = await next()
  return {
    ...side,
    client,
    frames,
    /** The next so many frames. */
    async take(count: number): Promise<Frame[]> {
      await new Promise<void>((resolve) => {
        wanted = count
        enough = resolve
        if (frames.length >= count) resolve()
      })
      return frames.splice(0)
    },
  }
}

const MIB = 1_048_576
const SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, MIB]

t.test("text of any size arrives as it was, between ws's own frames", async (t) => {
  const { wire, websocket, take } = await pair(t)
  for (const size of SIZES) {
    const text = "x".repeat(size)
    websocket.ping("before")
    wire.write(frameText(text))
    websocket.pong("between")
    wire.write(Buffer.concat([PING_FRAME, frameText(text), frameText("{}")]))
    websocket.send("of ws")
    wire.write(frameText(text))
    const found = await take(8)
    t.same(
      found.map(({ kind, text }) => `${kind} ${text.length > 10 ? text.length : text}`),
      [
        "ping before",
        `message ${size > 10 ? size : text}`,
        "pong between",
        "ping ",
        `message ${size > 10 ? size : text}`,
        "message {}",
        "message of ws",
        `message ${size > 10 ? size : text}`,
      ],
    )
    t.ok(found.filter(({ text }) => text.length > 10).every((frame) => frame.text === text))
  }
})

t.test("the bytes go past ws, and are counted as they leave", async (t) => {
  const { wire, sends, take, client } = await pair(t)
  const frame = frameText("x".repeat(10 * MIB))
  const before = wire.sent
  client.pause()
  wire.write(frame)
  t.ok(wire.full)
  await until("the kernel has taken what it may", () => wire.sent > before)
  const part = wire.sent - before
  t.ok(part > 0 && part < frame.length, `${part} bytes of one write`)
  t.ok(wire.queued > 0)
  client.resume()
  await take(1)
  await until("it has drained", () => !wire.full)
  t.equal(wire.sent - before, frame.length)
  t.equal(wire.queued, 0)
  t.equal(sends(), 0, "ws has framed nothing: if it has to, see createWire")
})

for (const [name, setup] of [
  ["with an extension", { compressed: true }],
  ["with a socket that ws does not write to", { taken: () => new PassThrough() }],
] satisfies [string, Setup][]) {
  t.test(`${name} each frame goes through ws, as it was and in order`, async (t) => {
    const { wire, sends, drains, websocket, client, take } = await pair(t, setup)
    t.equal(client.extensions !== "", "compressed" in setup)
    for (const size of SIZES) {
      const text = "x".repeat(size)
      wire.cork()
      wire.write(Buffer.concat([PING_FRAME, frameText(text), frameText("é")]))
      wire.uncork()
      websocket.send("of ws")
      wire.write(frameText("last"))
      const found = await take(5)
      t.same(
        found.filter(({ kind }) => kind === "message").map(({ text }) => text.length),
        [size, 1, 5, 4],
      )
      t.equal(found.filter(({ kind }) => kind === "ping").length, 1)
    }
    t.equal(sends(), SIZES.length * 4)
    await until("all was sent", () => wire.queued === 0 && !wire.full)
    const before = { drains: drains(), sent: wire.sent }
    client.pause()
    const text = randomBytes(10 * MIB).toString("base64")
    wire.write(frameText(text))
    t.ok(wire.full)
    t.equal(drains(), before.drains)
    client.resume()
    t.ok((await take(1))[0]?.text === text)
    await until("it has drained", () => !wire.full)
    t.equal(drains(), before.drains + 1)
    t.equal(wire.sent - before.sent, text.length)
    wire.close(4000, "bye")
    t.notOk(wire.open)
    wire.write(frameText("too late"))
  })
}

t.test("a length is counted in bytes, not in characters", async (t) => {
  const { wire, take } = await pair(t)
  for (const size of [125, 126, 65_535, 65_536, MIB]) {
    for (const character of ["é", "€", "𝄞"]) {
      const bytes = Buffer.byteLength(character)
      const text = character.repeat(Math.floor(size / bytes)) + "x".repeat(size % bytes)
      t.equal(Buffer.byteLength(text), size)
      wire.write(frameText(text))
      wire.write(frameText("next"))
      const [first, second] = await take(2)
      t.ok(first?.text === text, `${size} bytes of ${character}`)
      t.equal(second?.text, "next")
    }
  }
})

t.test("the header is the shortest one that the length allows", async (t) => {
  const header = (size: number) =>
    frameText("x".repeat(size))
      .subarray(0, -size || undefined)
      .toString("hex")
  t.equal(header(0), "8100")
  t.equal(header(125), "817d")
  t.equal(header(126), "817e007e")
  t.equal(header(65_535), "817effff")
  t.equal(header(65_536), "817f0000000000010000")
})

t.test("frames in any order, held back or not, arrive in the order in which they were written", async (t) => {
  const { wire, websocket, take } = await pair(t)
  const text = fc.oneof(
    fc.string({ unit: "grapheme" }),
    fc.constantFrom(...SIZES.slice(0, 7)).map((n) => "y".repeat(n)),
  )
  const control = fc.string({ maxLength: 30 })
  const act = fc.oneof(
    { weight: 4, arbitrary: fc.record({ by: fc.constant("wire"), text }) },
    { weight: 1, arbitrary: fc.record({ by: fc.constant("send"), text }) },
    { weight: 1, arbitrary: fc.record({ by: fc.constantFrom("ping", "pong"), text: control }) },
    { weight: 1, arbitrary: fc.record({ by: fc.constantFrom("cork", "uncork"), text: fc.constant("") }) },
  )
  const property = fc.asyncProperty(fc.array(act, { maxLength: 30 }), async (acts) => {
    const expected: Frame[] = []
    let corks = 0
    for (const { by, text } of acts) {
      if (by === "wire") wire.write(frameText(text))
      if (by === "send") websocket.send(text)
      if (by === "ping") websocket.ping(text)
      if (by === "pong") websocket.pong(text)
      if (by === "cork") {
        wire.cork()
        corks++
      }
      if (by === "uncork" && corks > 0) {
        wire.uncork()
        corks--
      }
      if (by === "wire" || by === "send") expected.push({ kind: "message", text: text })
      if (by === "ping" || by === "pong") expected.push({ kind: by, text: text })
    }
    for (; corks > 0; corks--) wire.uncork()
    assert.deepEqual(await take(expected.length), expected)
  })
  await t.resolves(fc.assert(property, { numRuns: 100 }))
})

t.test("answers to a client's pings fall between frames, never into one", async (t) => {
  const { wire, client, take, socket } = await pair(t)
  const text = "z".repeat(400_000)
  // ws ends a connection with more than 60 pongs that wait.
  const PINGS = 50
  let answered = 0
  client.on("pong", () => answered++)
  client.pause()
  // Beyond what the kernel takes at once, so that pongs are written while frames of ours wait.
  for (let sent = 0; sent < PINGS; sent++) {
    wire.write(frameText(text))
    client.ping(String(sent))
    if (sent % 10 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  t.ok(wire.queued > 1_000_000)
  t.equal(wire.queued, socket.writableLength)
  client.resume()
  const found = await take(2 * PINGS)
  t.equal(found.filter((frame) => frame.text === text).length, PINGS)
  t.same(
    found.filter(({ kind }) => kind === "pong").map(({ text }) => text),
    Array.from({ length: PINGS }, (_, index) => String(index)),
  )
  t.equal(answered, PINGS)
  t.equal(wire.queued, 0)
})

const HANDSHAKE = [
  "GET / HTTP/1.1",
  "Host: relay",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  `Sec-WebSocket-Key: ${Buffer.alloc(16).toString("base64")}`,
  "\r\n",
].join("\r\n")

/** A client that keeps all bytes behind the handshake. */
async function listen(t: Test, port: number): Promise<{ socket: Socket; bytes: Promise<Buffer> }> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  const received: Buffer[] = []
  const bytes = new Promise<Buffer>((resolve) => {
    socket.on("data", (data) => received.push(data))
    socket.on("end", () => {
      const all = Buffer.concat(received)
      resolve(all.subarray(all.indexOf("\r\n\r\n") + 4))
    })
  })
  socket.write(HANDSHAKE)
  return { socket, bytes }
}

const MASKED_CLOSE = Buffer.from([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])

t.test("nothing follows the close frame", async (t) => {
  const { port, next } = await serve(t)
  const { socket, bytes } = await listen(t, port)
  const { wire } = await next()
  t.ok(wire.open)
  wire.write(frameText("last"))
  wire.close(4000, "bye")
  t.notOk(wire.open)
  wire.write(frameText("too late"))
  wire.close(4001, "again")
  socket.write(MASKED_CLOSE)
  t.equal(
    (await bytes).toString("hex"),
    `${frameText("last").toString("hex")}8805${"0fa0"}${Buffer.from("bye").toString("hex")}`,
  )
})

t.test("nothing follows the answer to a client's close frame", async (t) => {
  const { port, next } = await serve(t)
  const { socket, bytes } = await listen(t, port)
  const { wire, websocket } = await next()
  const closed = new Promise((resolve) => websocket.once("close", resolve))
  wire.write(frameText("last"))
  socket.write(MASKED_CLOSE)
  while (wire.open) {
    await new Promise((resolve) => setImmediate(resolve))
  }
  wire.write(frameText("too late"))
  t.equal((await bytes).toString("hex"), `${frameText("last").toString("hex")}880203e8`)
  socket.end()
  await closed
  wire.write(frameText("much too late"))
  wire.terminate()
})

t.test("a client that is gone makes nothing throw", async (t) => {
  const { wire, websocket, client } = await pair(t)
  const closed = new Promise((resolve) => websocket.once("close", resolve))
  client.terminate()
  for (let sent = 0; sent < 10; sent++) wire.write(frameText("x".repeat(100_000)))
  await closed
  t.notOk(wire.open)
  wire.cork()
  wire.write(frameText("x"))
  wire.uncork()
  wire.close(4000, "")
  wire.terminate()
})
