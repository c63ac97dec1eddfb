/** Much of everything at once. What of it is refused is a matter of limits; that nobody else notices is not. */

import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { closing, frame, Opcode, say } from "../helpers/frame.ts"
import {
  authenticated,
  GET,
  openRaw,
  type RawClient,
  upgrade,
  whenEnded,
  wordsOf,
  wordsUntil,
} from "../helpers/raw.ts"
import { NO_LIMITS, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"
import { startWitness } from "../helpers/witness.ts"

type Attack = (t: Test, relay: TestRelay) => Promise<void>

const CROWD = 300

/** So many sockets, each of which says the same. */
async function crowd(t: Test, relay: TestRelay, bytes: (n: number) => string | Buffer): Promise<RawClient[]> {
  return Promise.all(
    Array.from({ length: CROWD }, async (_, n) => {
      const client = await openRaw(t, relay.url)
      client.send(bytes(n))
      return client
    }),
  )
}

const cut = (clients: RawClient[]) => {
  for (const { socket } of clients) socket.destroy()
}

/** Sends again and again without reading, until the relay has no connection of that user, or takes no more. */
async function pour(client: RawClient, relay: TestRelay, bytes: (round: number) => Buffer): Promise<void> {
  client.socket.pause()
  const gone = () => relay.relay.status().hub.users.hostile === undefined
  const stalled = () => client.socket.writableLength > 4 * 1_048_576
  for (let round = 0; round < 5_000 && !gone() && !stalled(); round++) {
    client.send(bytes(round))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await until("the relay has cut it, or reads no more of it", () => gone() || stalled())
  client.socket.destroy()
}

async function enter(t: Test, relay: TestRelay): Promise<RawClient> {
  const client = await openRaw(t, relay.url)
  client.send(authenticated())
  await client.find("connection_success", () => wordsOf(client)[0])
  return client
}

const times = (count: number, bytes: (n: number) => Buffer) =>
  Buffer.concat(Array.from({ length: count }, (_, n) => bytes(n)))

/** The same channels joined and left, different ones each round. */
const joining = (round: number) =>
  times(10, (n) => {
    const channels = [`committee:${round * 10 + n + 1}`]
    return Buffer.concat([say({ type: "subscribe", channels }), say({ type: "unsubscribe", channels })])
  })

const ATTACKS: [what: string, attack: Attack][] = [
  ["sockets that say nothing", async (t, relay) => cut(await crowd(t, relay, () => ""))],
  ["sockets that say half", async (t, relay) => cut(await crowd(t, relay, () => upgrade().slice(0, 60)))],
  [
    "connections without a token",
    async (t, relay) => {
      for (const client of await crowd(t, relay, () => upgrade())) await whenEnded(client)
    },
  ],
  [
    "connections that come and go",
    async (t, relay) => {
      for (let wave = 0; wave < 3; wave++)
        cut(await crowd(t, relay, (n) => authenticated({ sub: `hostile ${n % 50}` })))
    },
  ],
  [
    "connections that come and say goodbye",
    async (t, relay) => {
      for (const client of await crowd(t, relay, () =>
        Buffer.concat([Buffer.from(authenticated()), closing(1000)]),
      ))
        await whenEnded(client)
    },
  ],
  [
    "bad tokens",
    async (t, relay) => {
      const bad = (n: number) =>
        [token({ sub: "hostile" }).slice(0, -1 - (n % 40)), `${n}`, token({ token_type: "refresh" })][n % 3]
      const clients = await crowd(t, relay, (n) => upgrade(GET, { Authorization: `Bearer ${bad(n)}` }))
      for (const client of clients) {
        await whenEnded(client)
        t.ok(wordsOf(client).every((word) => word === "close 4500"))
      }
    },
  ],
  [
    "bad tokens in the first message",
    async (t, relay) => {
      const guess = (n: number) => say({ type: "authenticate", token: `guess ${n}` })
      const clients = await crowd(t, relay, () => Buffer.concat([Buffer.from(upgrade()), times(20, guess)]))
      for (const client of clients) {
        await whenEnded(client)
        t.ok(wordsOf(client).every((word) => word === "close 4500"))
      }
    },
  ],
  [
    "refused upgrades",
    async (t, relay) => {
      for (const client of await crowd(t, relay, () => upgrade("GET /elsewhere HTTP/1.1")))
        await whenEnded(client)
    },
  ],
  [
    "requests on one socket",
    async (t, relay) => {
      const client = await openRaw(t, relay.url)
      client.send("GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000))
      await client.find("some answers", () => (client.received().length > 10_000 ? true : undefined))
      client.socket.destroy()
    },
  ],
  [
    "requests behind which an upgrade hides",
    async (t, relay) => {
      const page = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
      const clients = await crowd(t, relay, (n) => page + upgrade(GET, n % 2 === 0 ? {} : { Upgrade: "h2c" }))
      for (const client of clients) {
        await whenEnded(client)
        t.notMatch(client.received().toString("latin1"), " 101 ")
      }
    },
  ],
  [
    "messages of the protocol",
    async (t, relay) => {
      const client = await enter(t, relay)
      client.send(times(5_000, (request) => say({ type: "ping", request })))
      await wordsUntil(client, "pong 4999")
      client.socket.destroy()
    },
  ],
  [
    "pings",
    async (t, relay) => {
      const client = await enter(t, relay)
      client.send(times(5_000, (n) => frame(String(n), { opcode: Opcode.ping })))
      await wordsUntil(client, "PONG 4999")
      client.socket.destroy()
    },
  ],
  [
    "messages that are wrong",
    async (t, relay) => {
      const client = await enter(t, relay)
      client.send(times(1_000, () => say({ type: "nonsense" })))
      t.equal((await wordsUntil(client, "")).at(-1), "close 4509")
    },
  ],
  [
    "subscriptions that are kept",
    async (t, relay) => {
      const client = await enter(t, relay)
      client.send(times(1_000, (n) => say({ type: "subscribe", channels: [`committee:${n + 1}`] })))
      t.equal((await wordsUntil(client, "")).at(-1), "close 4505")
    },
  ],
  [
    "subscriptions that come and go",
    async (t, relay) => {
      const client = await enter(t, relay)
      for (let round = 0; round < 100; round++) client.send(joining(round))
      client.send(say({ type: "ping", request: "last" }))
      await wordsUntil(client, "pong last")
      client.socket.destroy()
    },
  ],
  [
    "subscriptions whose answers nobody reads",
    async (t, relay) => pour(await enter(t, relay), relay, joining),
  ],
  [
    "refusals that nobody reads",
    async (t, relay) =>
      pour(await enter(t, relay), relay, () =>
        times(50, () => say({ type: "unsubscribe", channels: ["a"] })),
      ),
  ],
  [
    "returns with cursors that are none",
    async (t, relay) => {
      const client = await enter(t, relay)
      const cursors = ["x", "0:1:1:", "0123456789ab:5:5:", `${"9".repeat(5_000)}:1:1:`]
      client.send(
        times(400, (n) => say({ type: "subscribe", channels: ["committee:0"], cursor: cursors[n % 4] })),
      )
      client.send(say({ type: "ping", request: "last" }))
      await wordsUntil(client, "pong last")
      client.socket.destroy()
    },
  ],
]

for (const [what, attack] of ATTACKS) {
  t.test(`many: ${what}`, async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, { ...NO_LIMITS, AUTH_TIMEOUT_SECONDS: "1" })
    const witness = await startWitness(t, db, relay)
    await witness.through(what, () => attack(t, relay))
  })
}
