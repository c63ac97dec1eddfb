/** A relay that is stopped hands its clients over: some at a time, and none of them misses anything. */

import t from "tap"
import { WebSocket } from "ws"
import { type Client, openClient } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { openFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"
import { startWriters } from "../helpers/writers.ts"

t.jobs = 2

async function crowd(relay: TestRelay, size: number): Promise<Client[]> {
  const clients: Client[] = []
  for (let n = 0; n < size; n++) clients.push(await relay.connect())
  return clients
}

t.test("some are closed at a time, and the others still get what happens", async (t) => {
  const db = await database(t)
  const [perSecond, size] = [20, 40]
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

t.test(
  "one relay after the other is restarted under load, and no client of the library misses anything",
  async (t) => {
    const db = await database(t)
    const settings = { DRAIN_RATE: "40", DRAIN_TIMEOUT_SECONDS: "30", MAX_CONNECTIONS_PER_USER: "0" }
    const start = () => startRelay(t, db, settings)
    let relays = [await start(), await start()]
    const portOf = ({ url }: TestRelay) => Number(new URL(url).port)
    const balancer = await startProxy(t, relays.map(portOf))
    const feeds = Array.from({ length: 60 }, () =>
      openFeed(t, { url: `http://127.0.0.1:${balancer.port}`, WebSocket }),
    )
    for (const feed of feeds) await feed.reaches("live")
    const writers = await startWriters(t, db, 2)
    for (const old of relays) {
      const next = await start()
      relays = [...relays.filter((relay) => relay !== old), next]
      balancer.aim(...relays.map(portOf))
      await old.relay.stop()
      for (const feed of feeds) await feed.reaches("live")
    }
    await writers.stop()
    const logged = (
      await db.query<{ id: string }>("select seq::text as id from relay.change order by change.seq")
    ).map(({ id }) => id)
    let moved = 0
    for (const { changes, count, resyncs, states, errors } of feeds) {
      await count(logged.length)
      t.same(changes.map(({ id }) => id).sort(), logged.toSorted(), "each change once")
      t.same([resyncs, errors], [["no_cursor"], []])
      moved += states.filter(({ kind }) => kind === "waiting").length
    }
    t.ok(moved >= feeds.length, `${moved} times somebody came back`)
  },
)

t.test("a connection that is old is told to connect anew, not all at the same time", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { MAX_CONNECTION_AGE_SECONDS: "2" })
  const began = performance.now()
  const clients = await crowd(relay, 10)
  for (const { closed } of clients) t.match(await closed, { code: 4000, reason: "time to connect anew" })
  t.ok(performance.now() - began >= 1_600, "not before four fifths of it")
})
