/** The limits on clients, each at its edge: the last that is allowed, the first that is refused, and when it is over. */

import type { Socket } from "node:net"
import t, { type Test } from "tap"
import { WebSocket } from "ws"
import type { Client } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { authenticated, openRaw, wordsUntil } from "../helpers/raw.ts"
import { metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const start = async (t: Test, settings: Record<string, string> = {}, clock?: () => number) => {
  const db = await database(t)
  const relay = await startRelay(
    t,
    db,
    { TRUST_PROXY: "loopback", ...settings },
    clock === undefined ? {} : { clock },
  )
  return { db, relay, connections: () => relay.relay.status().hub.connections }
}

/** A clock that the test moves. */
function handClock() {
  let ms = 1_000
  return {
    now: () => ms,
    pass(more: number) {
      ms += more
    },
  }
}

interface Answer {
  status: number | undefined
  retryAfter: string | undefined
  socket: WebSocket
}

/** Asks for an upgrade on behalf of an address, as a proxy does. */
function knock(t: Test, relay: TestRelay, address: string, bearer = token()): Promise<Answer> {
  const socket = new WebSocket(`${relay.url.replace("http", "ws")}/ws`, {
    headers: { authorization: `Bearer ${bearer}`, "x-forwarded-for": address },
  })
  t.teardown(() => socket.terminate())
  return new Promise((resolve, reject) => {
    socket.on("error", reject)
    socket.on("open", () => resolve({ status: 101, retryAfter: undefined, socket }))
    socket.on("unexpected-response", (_, { statusCode: status, headers }) => {
      socket.removeListener("error", reject)
      socket.on("error", () => {})
      socket.terminate()
      resolve({ status, retryAfter: headers["retry-after"], socket })
    })
  })
}

/** Knocks so many times, one after the other, and hangs up. @returns how often the door was opened. */
async function visits(t: Test, relay: TestRelay, address: string, times: number): Promise<number> {
  let opened = 0
  for (let n = 0; n < times; n++) {
    const { status, socket } = await knock(t, relay, address)
    if (status === 101) opened++
    socket.terminate()
  }
  return opened
}

const A = "203.0.113.1"
const B = "203.0.113.2"

t.test("connections of an address: the next waits until one has left, whatever way it leaves", async (t) => {
  const { relay, connections } = await start(t, { MAX_CONNECTIONS_PER_ADDRESS: "2" })
  const status = async (address: string, bearer?: string) => (await knock(t, relay, address, bearer)).status
  await knock(t, relay, B)
  const { socket: first } = await knock(t, relay, A)
  const { socket: second } = await knock(t, relay, A)
  t.match(await knock(t, relay, A), { status: 429, retryAfter: "10" })
  t.equal(await status(B), 101, "another address is served")
  t.equal(connections(), 4)
  first.close()
  await until("one has said goodbye", () => connections() === 3)
  t.equal(await status(A), 101)
  t.equal(await status(A), 429)
  second.terminate()
  await until("one has hung up", () => connections() === 3)
  t.equal(await status(A, "no token"), 101, "it is sent away by the token")
  await until("it was", () => connections() === 3)
  t.equal(await status(A), 101)
  t.equal(await status(A), 429)
  t.same(relay.relay.status().limits, { connections_per_address: 3 })
  t.equal(await metricOf(relay, "relay_limits_reached_total", 'limit="connections_per_address"'), 3)
  t.equal(await metricOf(relay, "relay_connects_total", 'result="connections_per_address"'), 3)
  const exposition = await relay.relay.exposition()
  t.match(exposition, "relay_addresses 2\n")
})

t.test("connections in all", async (t) => {
  const { relay, connections } = await start(t, { MAX_CONNECTIONS: "2" })
  const { socket } = await knock(t, relay, A)
  await knock(t, relay, B)
  t.match(await knock(t, relay, "203.0.113.3"), { status: 503, retryAfter: "10" })
  for (const path of ["/health/live", "/health/ready", "/metrics"])
    t.equal((await fetch(relay.url + path)).status, 200, path)
  socket.close()
  await until("one has left", () => connections() === 1)
  t.match(await knock(t, relay, "203.0.113.3"), { status: 101 })
  t.match(await knock(t, relay, A), { status: 503 })
  const answer = await fetch(`${relay.url}/api/utils/websocket/health/`, {
    headers: { authorization: `Bearer ${token({ role: "admin" })}` },
  })
  t.match(await answer.json(), { limits_reached: { connections: 2 } }, "operations see it")
})

t.test(
  "upgrades of an address: five seconds' worth at once, then the rate, for as long as it lasts",
  async (t) => {
    const clock = handClock()
    const { relay } = await start(t, { MAX_UPGRADE_RATE_PER_ADDRESS: "2" }, clock.now)
    t.equal(await visits(t, relay, A, 10), 10)
    t.match(await knock(t, relay, A), { status: 429, retryAfter: "1" })
    t.equal(await visits(t, relay, B, 1), 1, "another address is served")
    clock.pass(490)
    t.equal(await visits(t, relay, A, 1), 0)
    clock.pass(10)
    t.equal(await visits(t, relay, A, 2), 1)
    for (let n = 0; n < 15; n++) {
      clock.pass(500)
      t.equal(await visits(t, relay, A, 1), 1)
    }
    let opened = 0
    for (let n = 0; n < 30; n++) {
      clock.pass(250)
      opened += await visits(t, relay, A, 1)
    }
    t.equal(opened, 15, "who knocks twice as fast is let in every other time")
  },
)

t.test("who comes less than once a second is told how long to wait", async (t) => {
  const clock = handClock()
  const { relay } = await start(t, { MAX_UPGRADE_RATE_PER_ADDRESS: "0.05" }, clock.now)
  t.equal(await visits(t, relay, A, 1), 1)
  t.match(await knock(t, relay, A), { status: 429, retryAfter: "20" })
  clock.pass(12_500)
  t.match(await knock(t, relay, A), { status: 429, retryAfter: "8" })
  clock.pass(7_500)
  t.equal(await visits(t, relay, A, 2), 1)
})

t.test("upgrades in all, of which a flood from one address takes no more than its own", async (t) => {
  const clock = handClock()
  const settings = { MAX_UPGRADE_RATE: "2", MAX_UPGRADE_RATE_PER_ADDRESS: "1" }
  const { relay, db } = await start(t, settings, clock.now)
  const witness = await relay.connect({ sub: "9" })
  t.equal(await visits(t, relay, A, 30), 5)
  t.equal(await visits(t, relay, B, 4), 4, "another address is served")
  t.match(await knock(t, relay, "203.0.113.3"), { status: 503, retryAfter: "1" })
  clock.pass(500)
  t.equal(await visits(t, relay, "203.0.113.3", 2), 1)
  await db.query("insert into vote (votes) values (1)")
  await witness.count(1)
  t.same(relay.relay.status().limits, { upgrade_rate_per_address: 25, upgrade_rate: 2 })
  const told = relay.lines.filter(({ event }) => event === "limit_reached")
  t.match(
    told,
    [
      { limit: "upgrade_rate_per_address", times: 1, level: 40 },
      { limit: "upgrade_rate", times: 1 },
    ],
    "a flood is a line a minute",
  )
  clock.pass(60_000)
  await visits(t, relay, A, 10)
  t.match(relay.lines.filter(({ event }) => event === "limit_reached").slice(2), [
    { limit: "upgrade_rate_per_address", times: 26 },
  ])
})

t.test("a host has one IPv6 network, and it is one address", async (t) => {
  const { relay } = await start(t, { MAX_CONNECTIONS_PER_ADDRESS: "2" })
  t.match(await knock(t, relay, "2001:db8:1:2::1"), { status: 101 })
  t.match(await knock(t, relay, "2001:db8:1:2:ffff:ffff:ffff:ffff"), { status: 101 })
  t.match(await knock(t, relay, "2001:db8:1:2::3"), { status: 429 })
  t.match(await knock(t, relay, "2001:db8:1:3::1"), { status: 101 })
})

t.test("who is not behind a trusted proxy cannot say who it is", async (t) => {
  const { relay } = await start(t, { TRUST_PROXY: "false", MAX_CONNECTIONS_PER_ADDRESS: "2" })
  t.match(await knock(t, relay, A), { status: 101 })
  t.match(await knock(t, relay, B), { status: 101 })
  for (let n = 3; n < 9; n++) t.match(await knock(t, relay, `203.0.113.${n}`), { status: 429 })
  t.match(
    relay.lines.filter(({ event }) => event === "limit_reached"),
    [{ limit: "connections_per_address", proxy: "127.0.0.1", msg: /TRUST_PROXY/ }],
    "operations are told, once, that it may be a proxy",
  )
})

t.test("what stands before the address that a trusted proxy has added is not believed", async (t) => {
  const { relay } = await start(t, { TRUST_PROXY: "1", MAX_CONNECTIONS_PER_ADDRESS: "2" })
  t.match(await knock(t, relay, `192.0.2.1, ${A}`), { status: 101 })
  t.match(await knock(t, relay, `192.0.2.2, ${A}`), { status: 101 })
  t.match(await knock(t, relay, `192.0.2.3, ${A}`), { status: 429 })
  t.match(await knock(t, relay, `192.0.2.3, ${B}`), { status: 101 })
  t.notOk(relay.lines.some((line) => "proxy" in line))
})

t.test("connections of a user: the next is refused until one has left", async (t) => {
  const { relay, connections } = await start(t, { MAX_CONNECTIONS_PER_USER: "2" })
  const [first] = [await relay.connect(), await relay.connect()]
  const third = await relay.open("/ws", { headers: { authorization: `Bearer ${token()}` } })
  t.same(await third.closed, { code: 4504, reason: "too many connections of this user" })
  t.same(third.messages, [])
  const late = await relay.open("/ws")
  await relay.connect({ sub: "8" })
  late.send({ type: "authenticate", token: token() })
  t.match(await late.closed, { code: 4504 }, "with the first message, too")
  t.same(relay.relay.status().limits, { connections_per_user: 2 })
  first?.socket.close()
  await until("one has left", () => connections() === 2)
  const fourth = await relay.connect()
  fourth.socket.send(Buffer.alloc(1))
  t.match(await fourth.closed, { code: 4501 })
  await relay.connect()
  t.match(relay.relay.status().hub.users, { 7: 2, 8: 1 })
})

t.test("or the user's oldest goes", async (t) => {
  const { relay, db } = await start(t, { MAX_CONNECTIONS_PER_USER: "2", USER_LIMIT: "evict" })
  const other = await relay.connect({ sub: "8" })
  const oldest = await relay.connect()
  const second = await relay.connect()
  // It does not even hear that it must go.
  oldest.socket.pause()
  const third = await relay.connect()
  let left: unknown
  void second.closed.then((why) => {
    left = why
  })
  const fourth = await relay.connect()
  await until("the second goes for the fourth", () => left !== undefined)
  t.same(left, { code: 4504, reason: "too many connections: a newer one took the place" })
  await db.query("insert into vote (votes) values (1)")
  for (const client of [other, third, fourth]) await client.count(1)
  t.same(relay.relay.status().hub.users, { 7: 2, 8: 1 })
  t.same(relay.relay.status().limits, { connections_per_user: 2 })
})

t.test("the only one goes for the next, and nobody for one that may not stay", async (t) => {
  const { relay, connections } = await start(t, { MAX_CONNECTIONS_PER_USER: "1", USER_LIMIT: "evict" })
  let last: Client = await relay.connect()
  for (let n = 0; n < 5; n++) {
    const next = await relay.connect()
    t.match(await last.closed, { code: 4504 })
    last = next
  }
  for (const query of ["?channels=user:8", `?channels=${channels(129)}`]) {
    const refused = await relay.open(`/ws${query}`, { headers: { authorization: `Bearer ${token()}` } })
    t.match((await refused.closed).code, /450[57]/)
  }
  await until("they are gone", () => connections() === 1)
  last.send({ type: "ping" })
  await last.first("pong", ({ type }) => type === "pong")
  t.same(relay.relay.status().limits, { connections_per_user: 5, channels: 1 })
})

const channels = (many: number) => Array.from({ length: many }, (_, n) => `committee:${n}`)

t.test("channels and errors at their edges", async (t) => {
  const { relay } = await start(t, { MAX_CHANNELS: "3", MAX_ERRORS: "2" })
  const joining = await relay.connect({}, `?channels=${channels(2)}`)
  joining.send({ type: "subscribe", channels: channels(3) })
  await joining.first("subscribed", ({ type }) => type === "subscribed")
  joining.send({ type: "subscribe", channels: channels(4) })
  t.match(await joining.closed, { code: 4505 })
  const failing = await relay.connect()
  for (let n = 0; n < 3; n++) failing.send("?")
  t.match(await failing.closed, { code: 4509 })
  t.equal(failing.messages.filter(({ type }) => type === "error").length, 2)
  t.same(relay.relay.status().limits, { channels: 1, errors: 1 })
})

const KINDS: Record<string, (client: Client) => void> = {
  "a message": (client) => client.send({ type: "pong" }),
  "a ping frame": (client) => client.socket.ping(),
  "a pong frame": (client) => client.socket.pong(),
  "a message in three fragments": (client) => {
    for (const [index, part] of ['{"type":', '"pong"', "}"].entries())
      client.socket.send(part, { binary: false, fin: index === 2 })
  },
}

/** Waits until the relay has heard everything so far. */
async function settle(client: Client): Promise<void> {
  const request = String(Math.random())
  client.send({ type: "ping", request })
  await client.first("its pong", (message) => message.request === request)
}

t.test("frames of a connection: all kinds count, five seconds' worth at once", async (t) => {
  const clock = handClock()
  const { relay } = await start(t, { MAX_FRAME_RATE: "4" }, clock.now)
  for (const [what, send] of Object.entries(KINDS)) {
    const client = await relay.connect()
    const calm = await relay.connect()
    for (let n = 0; n < 19; n++) send(client)
    await settle(client)
    send(client)
    t.same(await client.closed, { code: 4013, reason: "too many requests" }, what)
    await settle(calm)
  }
  t.same(relay.relay.status().limits, { frame_rate: 4 })
})

t.test("frames of a connection in the long run", async (t) => {
  const clock = handClock()
  const { relay } = await start(t, { MAX_FRAME_RATE: "4" }, clock.now)
  const client = await relay.connect()
  for (let n = 0; n < 100; n++) {
    clock.pass(250)
    await settle(client)
  }
  let heard = 0
  for (; heard < 200 && client.socket.readyState === WebSocket.OPEN; heard++) {
    clock.pass(125)
    await Promise.race([settle(client), client.closed])
  }
  t.match(await client.closed, { code: 4013 })
  t.ok(heard >= 38 && heard <= 41, `twice as fast: cut off at ${heard}`)
})

t.test(
  "frames of a user's connections together, whoever of them sends, and also when it returns",
  async (t) => {
    const clock = handClock()
    const settings = { MAX_FRAME_RATE: "4", MAX_FRAME_RATE_PER_USER: "2" }
    const { relay } = await start(t, settings, clock.now)
    const [one, two, other] = [
      await relay.connect(),
      await relay.connect(),
      await relay.connect({ sub: "8" }),
    ]
    for (let n = 0; n < 5; n++) {
      await settle(one)
      await settle(two)
    }
    two.send({ type: "ping" })
    t.match(await two.closed, { code: 4013 })
    await settle(other)
    const again = await relay.connect()
    again.socket.ping()
    t.match(await again.closed, { code: 4013 })
    clock.pass(500)
    await settle(one)
    t.same(relay.relay.status().limits, { frame_rate_per_user: 2 })
  },
)

t.test("who sends too much is not read any more", async (t) => {
  const { relay, connections } = await start(t)
  const flood = await relay.connect()
  const calm = await relay.connect({ sub: "8" })
  const { _socket: socket } = flood.socket as WebSocket & { _socket: Socket }
  const ended = new Promise<void>((resolve) => socket.on("close", () => resolve()))
  let left = 0
  socket.on("error", () => {
    left = socket.writableLength
  })
  // Whole frames that the library, which honours the close, would not send: 96 MB, more than any kernel buffers.
  const text = '{"type":"pong"}'.padEnd(0x3fff)
  const frame = Buffer.concat([Buffer.from([0x81, 0xfe, 0x3f, 0xff, 0, 0, 0, 0]), Buffer.from(text)])
  for (let n = 0; n < 6_144; n++) socket.write(frame)
  await settle(calm)
  await ended
  await until("it is cut", () => connections() === 1)
  t.ok(left > 0, `${left} bytes were not taken`)
  await settle(calm)
})

t.test("a limit of 0 is none", async (t) => {
  const none = ["CONNECTIONS", "CONNECTIONS_PER_ADDRESS", "CONNECTIONS_PER_USER"]
  const rates = ["UPGRADE_RATE", "UPGRADE_RATE_PER_ADDRESS", "FRAME_RATE", "FRAME_RATE_PER_USER"]
  const settings = Object.fromEntries([...none, ...rates].map((name) => [`MAX_${name}`, "0"]))
  const { relay } = await start(t, settings, () => 0)
  const clients = await Promise.all(Array.from({ length: 120 }, () => relay.connect()))
  for (const client of clients.slice(0, 3)) {
    for (let n = 0; n < 1_500; n++) client.send({ type: "pong" })
    await settle(client)
  }
  t.same(relay.relay.status().limits, {})
})

t.test("a user's connection that answers nothing gives its place to a newer one", async (t) => {
  let ahead = 0
  const clock = () => performance.now() + ahead
  const settings = { MAX_CONNECTIONS_PER_USER: "2", HEARTBEAT_SECONDS: "3600" }
  const { relay } = await start(t, settings, clock)
  const alive = await relay.connect({ sub: "7" })
  const asked = new Promise((resolve) => alive.socket.once("ping", resolve))
  const dead = await openRaw(t, relay.url)
  dead.send(authenticated({ sub: "7" }))
  await wordsUntil(dead, "connection_success")
  const come = async () => {
    const client = await relay.open("/ws", { headers: { authorization: `Bearer ${token({ sub: "7" })}` } })
    await until("it is answered", () => client.messages.length > 0 || client.socket.readyState > 1)
    return client
  }
  t.match(await (await come()).closed, { code: 4504 })
  await asked
  alive.send({ type: "ping", request: 1 })
  await alive.first("the pong behind that to the relay", ({ request }) => request === 1)
  t.match(await (await come()).closed, { code: 4504 }, "it has time to answer")
  ahead = 10_000
  const back = await come()
  t.match(back.messages, [{ type: "connection_success" }])
  t.match(await wordsUntil(dead, "close 4012"), ["connection_success", "close 4012"])
  t.equal(alive.socket.readyState, alive.socket.OPEN, "who answers stays")
  t.equal(relay.relay.status().limits.connections_per_user, 2, "who came for the dead one reached no limit")
})
