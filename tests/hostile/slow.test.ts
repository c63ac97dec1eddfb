/** Clients that take their time, go half, or go without a word: each holds a socket for a while, and for no longer. They wait, so they run at once. */

import type { Socket } from "node:net"
import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { closing, frame, Opcode, say } from "../helpers/frame.ts"
import {
  authenticated,
  openRaw,
  type RawClient,
  statusLine,
  upgrade,
  whenEnded,
  wordsOf,
  wordsUntil,
} from "../helpers/raw.ts"
import { NO_LIMITS, startRelay, type TestRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"
import { startWitness } from "../helpers/witness.ts"

t.jobs = 4

/** Sends a byte now and then until the relay has had enough. */
function trickle(client: RawClient, bytes: Buffer | string): void {
  const all = Buffer.from(bytes)
  let at = 0
  const timer = setInterval(() => {
    if (client.ended() || at >= all.length) return clearInterval(timer)
    client.send(all.subarray(at, ++at))
  }, 50)
  client.socket.once("close", () => clearInterval(timer))
}

/** Cuts a socket with a reset, as a client does whose machine goes on without it. */
const reset = (socket: Socket) => socket.resetAndDestroy()

type Attack = (t: Test, relay: TestRelay) => Promise<void>

/** Opens one and waits until the relay has let it in. */
async function enter(t: Test, relay: TestRelay, request = authenticated()): Promise<RawClient> {
  const client = await openRaw(t, relay.url)
  client.send(request)
  await client.find("the first message", () => (wordsOf(client).length > 0 ? true : undefined))
  return client
}

/** What a slow request gets, whatever part of it is slow. */
const lateRequest =
  (first: string, rest: string): Attack =>
  async (t, relay) => {
    const client = await openRaw(t, relay.url)
    client.send(first)
    trickle(client, rest)
    t.match(await statusLine(client), "HTTP/1.1 408 ")
    await whenEnded(client)
  }

const LONG = "x".repeat(10_000)
const STUFFED = say({ type: "ping", request: "x".repeat(64) })

const ATTACKS: [what: string, attack: Attack][] = [
  [
    "answers over HTTP that nobody takes",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.socket.pause()
      client.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000))
      // Node looks twice whether anything moves.
      await until("it is cut", async () => (await relay.sockets()) === 1)
    },
  ],
  ["no byte at all", lateRequest("", "")],
  ["a byte and no more", lateRequest("G", "")],
  ["a request line that does not end", lateRequest("", `GET /ws?cursor=${LONG}`)],
  ["headers that do not end", lateRequest("GET /ws HTTP/1.1\r\n", `Host: a\r\n${"a: b\r\n".repeat(2_000)}`)],
  ["a whole request but for its last byte", lateRequest(upgrade().slice(0, -1), "")],
  [
    "a body that does not end",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.send("POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n")
      trickle(client, LONG)
      t.match(await statusLine(client), "HTTP/1.1 404 ")
      await whenEnded(client)
    },
  ],
  [
    "a second request that does not come",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
      t.match(await statusLine(client), "HTTP/1.1 200 ")
      await whenEnded(client)
    },
  ],
  [
    "a frame that does not end, and no token",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.send(upgrade())
      trickle(client, say({ type: "authenticate", token: LONG }))
      t.strictSame(await wordsUntil(client, ""), ["close 4502"])
    },
  ],
  [
    "pings instead of a token",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.send(upgrade())
      trickle(client, Buffer.concat(Array(1_000).fill(frame("", { opcode: Opcode.ping }))))
      t.equal((await wordsUntil(client, "")).at(-1), "close 4502")
    },
  ],
  [
    "a frame a byte at a time, with a token",
    async (t, relay) => {
      const client = await enter(t, relay)
      trickle(client, say({ type: "ping", request: "slow" }))
      t.strictSame(await wordsUntil(client, "pong slow"), ["connection_success", "pong slow"])
      client.socket.destroy()
    },
  ],
  [
    "a close frame that is not answered",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.send(upgrade("GET /ws HTTP/1.1", { Authorization: "Bearer x" }))
      t.strictSame(await wordsUntil(client, ""), ["close 4500"])
      // That the relay cuts it is the witness's to see.
    },
  ],
  [
    "more and more after the relay's close frame",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.send(upgrade("GET /ws HTTP/1.1", { Authorization: "Bearer x" }))
      t.strictSame(await wordsUntil(client, ""), ["close 4500"])
      trickle(client, Buffer.concat(Array(100).fill(STUFFED)))
      await whenEnded(client)
      t.strictSame(wordsOf(client), ["close 4500"])
    },
  ],
  [
    "a close frame, and then nothing",
    async (t, relay) => {
      const client = await enter(t, relay)
      client.send(closing(1000))
      t.strictSame(await wordsUntil(client, ""), ["connection_success", "close 1000"])
      await whenEnded(client)
    },
  ],
  [
    "half a close before the upgrade",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.socket.end("GET /ws HTTP/1.1\r\n")
      await whenEnded(client)
      t.notMatch(client.received().toString(), " 101 ")
    },
  ],
  [
    "half a close with the upgrade",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.socket.end(authenticated())
      await whenEnded(client)
    },
  ],
  [
    "half a close in the middle of a frame",
    async (t, relay) => {
      const client = await enter(t, relay)
      client.socket.end(STUFFED.subarray(0, 20))
      await whenEnded(client)
      t.strictSame(wordsOf(client), ["connection_success"])
    },
  ],
  [
    "a reset before the request is whole",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      await client.dribble(Buffer.from("GET /ws HTTP/1.1\r\nHost:"))
      reset(client.socket)
    },
  ],
  [
    "a reset right behind the upgrade",
    async (t, relay) => {
      for (let round = 0; round < 20; round++) {
        const client = await openRaw(t, relay.url)
        client.send(authenticated())
        for (let turn = 0; turn < round % 5; turn++) await new Promise((resolve) => setImmediate(resolve))
        reset(client.socket)
      }
    },
  ],
  [
    "a reset in the middle of a frame",
    async (t, relay) => {
      for (let cut = 1; cut < STUFFED.length; cut += 7) {
        const client = await enter(t, relay)
        await client.dribble(STUFFED.subarray(0, cut))
        reset(client.socket)
      }
    },
  ],
  [
    "a reset while the relay writes",
    async (t, relay) => {
      const client = await enter(t, relay)
      for (let sent = 0; sent < 200; sent++) client.send(STUFFED)
      reset(client.socket)
    },
  ],
  [
    "a reset in the middle of a page",
    async (t, relay) => {
      for (let round = 0; round < 20; round++) {
        const client = await openRaw(t, relay.url)
        client.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for (let turn = 0; turn < round % 5; turn++) await new Promise((resolve) => setImmediate(resolve))
        reset(client.socket)
      }
    },
  ],
  [
    "pings whose answers nobody reads",
    async (t, relay) => {
      const client = await enter(t, relay)
      client.socket.pause()
      const pings = Buffer.concat(Array(1_000).fill(frame("x".repeat(125), { opcode: Opcode.ping })))
      const gone = () => relay.relay.status().hub.users.hostile === undefined
      for (let round = 0; round < 1_000 && !gone(); round++) {
        client.send(pings)
        await new Promise((resolve) => setImmediate(resolve))
      }
      await until("it is cut", gone)
      client.socket.destroy()
    },
  ],
]

for (const [what, attack] of ATTACKS) {
  t.test(what, async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, { ...NO_LIMITS, AUTH_TIMEOUT_SECONDS: "1" })
    const witness = await startWitness(t, db, relay)
    await witness.through(what, () => attack(t, relay))
  })
}
