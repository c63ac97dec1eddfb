/** A relay that is stopped hands its clients over: some at a time, and none of them misses anything. */

import { setTimeout as sleep } from "node:timers/promises"
import t from "tap"
import { WebSocket } from "ws"
import { type Client, openClient } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { openFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 2

const CLIENTS = 2_000
/** How long the library waits before it comes back from a relay that stops. Milliseconds. */
const SPREAD_MS = 3_000

async function crowd(relay: TestRelay, size: number): Promise<Client[]> {
  const clients: Client[] = []
  for (let n = 0; n < size; n++) clients.push(await relay.connect())
  return clients
}

t.test("some are closed at a time, and the others still get what happens", async (t) => {
  const db = await database(t)
  // Slow enough for all that is done while it lasts.
  const [perSecond, size] = [4, 40]
  const relay = await startRelay(t, db, { DRAIN_RATE: String(perSecond), DRAIN_TIMEOUT_SECONDS: "60" })
  const clients = await crowd(relay, size)
  const ends: number[] = []
  for (const { closed } of clients) void closed.then(() => ends.push(performance.now()))
  const began = performance.now()
  const stopped = relay.relay.stop()
  await until("some are closed", () => ends.length >= 5)
  t.equal((await fetch(`${relay.url}/health/ready`)).status, 503)
  t.equal((await fetch(`${relay.url}/health/live`)).status, 200)
  const refused = openClient(t, `${relay.url.replace("http", "ws")}/ws?token=${token()}`)
  await t.rejects(refused, /503/, "nobody comes in any more")
  await db.query("insert into vote (votes) values (4711)")
  const last = clients.at(-1) as Client
  await last.first("the change", ({ data }) => data?.votes === 4711)
  t.ok(ends.length < size, `${ends.length} were gone then`)
  t.same(
    new Set((await Promise.all(clients.map(({ closed }) => closed))).map(({ code }) => code)),
    new Set([4000]),
  )
  const early = ends.filter((end, n) => end - began < (n / perSecond) * 1_000)
  t.same(early, [], "no more than so many a second")
  await stopped
})

t.test("if they are too many for that, they are closed faster, and none is cut", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { DRAIN_RATE: "0.1", DRAIN_TIMEOUT_SECONDS: "4" })
  const clients = await crowd(relay, 30)
  await relay.relay.stop()
  t.same(
    new Set((await Promise.all(clients.map(({ closed }) => closed))).map(({ code }) => code)),
    new Set([4000]),
  )
})

t.test("one relay after the other is restarted under load, as docs/OPERATIONS.md has it", async (t) => {
  const db = await database(t)
  // All limits and rates as they are by default.
  const start = () => startRelay(t, db, { DRAIN_TIMEOUT_SECONDS: "20" })
  let relays = [await start(), await start()]
  const all = [...relays]
  const portOf = ({ url }: TestRelay) => Number(new URL(url).port)
  const balancer = await startProxy(t, relays.map(portOf))
  const url = `http://127.0.0.1:${balancer.port}`
  const waits: number[] = []
  let longest = 0
  const feeds = Array.from({ length: CLIENTS }, (_, n) => {
    const follower = openFeed(t, { url, WebSocket, token: token({ sub: `user ${n}` }) })
    let leftAt: number | undefined
    follower.feed.on("state", (state) => {
      const now = performance.now()
      if (state.kind === "waiting" && leftAt === undefined) {
        leftAt = now
        waits.push(state.delayMs)
      }
      if (state.kind !== "live" || leftAt === undefined) return
      longest = Math.max(longest, now - leftAt)
      leftAt = undefined
    })
    return follower
  })
  const allLive = () => until("all are live", () => feeds.every(({ feed }) => feed.state.kind === "live"))
  await allLive()
  const stop = new AbortController()
  const live = () => feeds.filter(({ feed }) => feed.state.kind === "live")
  const writing = (async () => {
    for (let written = 1; !stop.signal.aborted; written++) {
      const at = performance.now()
      await db.query("insert into vote (votes) values (1)")
      await until("who is live has it", () => live().every(({ changes }) => changes.length >= written))
      // All clients are in this one process: more changes, or as many on a slow machine, would keep them from connecting.
      await sleep(Math.max(250, performance.now() - at))
    }
  })()
  for (const old of relays) {
    const next = await start()
    all.push(next)
    relays = [...relays.filter((relay) => relay !== old), next]
    balancer.aim(...relays.map(portOf))
    await old.relay.stop()
    await allLive()
  }
  stop.abort()
  await writing
  const [row] = await db.query<{ count: number }>("select count(*)::int from relay.change")
  const count = row?.count as number
  await until("all have all", () => feeds.every(({ changes }) => changes.length >= count))
  const whole = feeds.filter(({ changes }) => new Set(changes.map(({ id }) => id)).size === count)
  t.equal(whole.length, CLIENTS, `each of ${count} changes`)
  t.same(
    feeds.filter(({ changes }) => changes.length !== count),
    [],
    "and once",
  )
  t.same(
    feeds.filter(({ resyncs, errors }) => resyncs.length !== 1 || errors.length > 0),
    [],
    "nobody had to load anew, or was refused",
  )
  for (const relay of all)
    t.equal(await metricOf(relay, "relay_limits_reached_total", 'limit="upgrade_rate_per_address"'), 0)
  t.ok(waits.length >= CLIENTS, `${waits.length} times somebody came back`)
  t.same(
    waits.filter((ms) => ms > SPREAD_MS),
    [],
    "and each tried at once, but for the spread",
  )
  t.comment(`the longest was away for ${Math.round(longest)} ms`)
})

t.test("a connection that is old is told to connect anew, not all at the same time", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { MAX_CONNECTION_AGE_SECONDS: "2" })
  const began = performance.now()
  const clients = await crowd(relay, 10)
  for (const { closed } of clients) t.match(await closed, { code: 4000, reason: "time to connect anew" })
  t.ok(performance.now() - began >= 1_600, "not before four fifths of it")
})
