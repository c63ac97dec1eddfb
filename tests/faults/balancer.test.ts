/** Several relays on one database behind a plain TCP balancer: a client hops between them and misses nothing. */

import t from "tap"
import { startCrowd } from "../helpers/crowd.ts"
import { database } from "../helpers/database.ts"
import { differences, Ledger, readState } from "../helpers/ledger.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const HOPS = 15

t.test(
  "clients that are cut under load hop between three relays and have the tables in the end",
  async (t) => {
    const db = await database(t)
    const settings = [{}, { REPLAY_BUFFER_MB: "0.01" }, { BELL: "off" }]
    const relays = await Promise.all(settings.map((each) => startRelay(t, db, each)))
    const balancer = await startProxy(
      t,
      relays.map(({ url }) => Number(new URL(url).port)),
    )
    const writers = await startCrowd(t, db.url, { short: 4, long: 2 })
    const stop = new AbortController()
    t.teardown(() => stop.abort())
    const session = await db.session()
    let reading = Promise.resolve((await readState(session)).copy)
    const load = () => {
      reading = reading.then(async () => (await readState(session)).copy)
      return reading
    }
    const ledgers = Array.from({ length: 4 }, () => new Ledger())
    const following = ledgers.map((ledger) =>
      ledger.follow(`http://127.0.0.1:${balancer.port}`, ["election_updates"], load, stop.signal),
    )
    const connected = () => ledgers.every(({ joined }) => joined)
    for (let hop = 0; hop < HOPS; hop++) {
      await until("all are connected", connected)
      const connections = ledgers.map(({ counts }) => counts.connections)
      // In the middle of a frame, at once, or while the line is slow.
      if (hop % 3 === 0) balancer.cutAfter(1 + Math.floor(Math.random() * 20_000))
      else if (hop % 3 === 1) balancer.cut()
      else {
        balancer.delay(20)
        balancer.limit(50_000)
        balancer.cutAfter(5_000)
      }
      await until("all have been cut", () =>
        ledgers.every(({ counts }, n) => counts.connections > (connections[n] as number)),
      )
      balancer.heal()
    }
    await until("all are connected", connected)
    await writers.stop()
    await db.query("select relay.broadcast('election_updates', '\"end\"')")
    await until("everybody has everything", () => ledgers.every(({ messages }) => messages.length > 0))
    const end = await readState(await db.session())
    for (const ledger of ledgers) {
      const [row] = await db.query<{ n: number }>(
        "select count(*)::int as n from relay.change where not pg_visible_in_snapshot(xid, $1::pg_snapshot)",
        [ledger.base.slice(ledger.base.indexOf(":") + 1)],
      )
      t.same(differences(ledger.copy, end.copy), [])
      t.equal(ledger.counts.changes, row?.n, "each change once")
      t.equal(ledger.counts.loads, 1, "nothing was lost, so nobody had to load again")
      t.ok(ledger.counts.recovered >= HOPS)
      t.comment(JSON.stringify(ledger.counts))
    }
    stop.abort()
    await Promise.all(following)
  },
)
