/** The client whose state has to be loaded: by the caller's hook, with its cursor or without, and never in silence. */

import t, { type Test } from "tap"
import type { Resync } from "../../client/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { followRelay, openFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"
import { buildTable } from "../helpers/table.ts"
import { until } from "../helpers/wait.ts"
import { startWriters } from "../helpers/writers.ts"

t.jobs = 3

type Why = Parameters<Resync>[0]["reason"]

/** The table and the cursor that belongs to it, as an application reads them. */
async function snapshot(db: Database) {
  const session = await db.session()
  await session.query("begin isolation level repeatable read read only")
  const { cursor } = (await session.query<{ cursor: string }>("select relay.cursor() as cursor")).rows[0] as {
    cursor: string
  }
  const { rows } = await session.query<{ row: Record<string, unknown> }>(
    "select row_to_json(vote) as row from vote order by id",
  )
  await session.query("commit")
  await session.end()
  return { cursor, rows: rows.map(({ row }) => row) }
}

async function start(t: Test) {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  return { db, relay, proxy, url: `http://127.0.0.1:${proxy.port}` }
}

const last = async (db: Database) =>
  (await db.query<{ id: string }>("select max(seq)::text as id from relay.change"))[0]?.id

t.test("what is loaded and what comes after it make the table, each change once", async (t) => {
  const { db, proxy, url } = await start(t)
  const writers = await startWriters(t, db, 3)
  await until("there is something", () => writers.written() > 20)
  const table = buildTable()
  const reasons: Why[] = []
  const { feed, changes, reaches, count, came, resyncs, errors } = openFeed(t, {
    url,
    async resync({ reason }) {
      reasons.push(reason)
      const { cursor, rows } = await snapshot(db)
      table.load(rows)
      // What is written now comes twice to the client: live, and after the cursor.
      const before = writers.written()
      await until("more is written", () => writers.written() > before + 20)
      return { cursor }
    },
  })
  feed.on("change", (change) => table.apply(change))
  await reaches("live")
  await count(100)
  proxy.cut()
  await came("live", 2)
  await writers.stop()
  const end = await last(db)
  await until("the last change", () => changes.at(-1)?.id === end || changes.some(({ id }) => id === end))
  t.same(table.faults.slice(0, 3), [])
  t.same(table.rows(), (await snapshot(db)).rows)
  t.same(reasons, ["no_cursor"], "the lost connection was resumed")
  t.same(resyncs, ["no_cursor"])
  t.same(errors, [])
})

t.test("without a cursor of its own, what came meanwhile comes after the load", async (t) => {
  const { db, relay, url } = await start(t)
  const other = await relay.connect()
  await db.query("insert into vote (votes) values (1)")
  await other.count(1)
  const order: string[] = []
  const { feed, reaches, count, changes } = openFeed(t, {
    url,
    async resync() {
      order.push("load")
      await db.query("insert into vote (votes) values (2)")
      await db.query("insert into vote (votes) values (3)")
      await other.count(3)
      await new Promise(setImmediate)
      t.same(changes, [], "nothing is delivered over what is being loaded")
      order.push("loaded")
    },
  })
  feed.on("voting_update", () => order.push("change"))
  await reaches("live")
  await count(2)
  await db.query("insert into vote (votes) values (4)")
  await count(3)
  t.same(order, ["load", "loaded", "change", "change", "change"])
  t.ok(feed.cursor)
})

t.test("channels may come and go while the state is loaded", async (t) => {
  const { db, relay, url } = await start(t)
  const { feed, reaches, count, changes } = openFeed(t, {
    url,
    channels: ["committee:1", "committee:2"],
    resync: async () => {
      feed.unsubscribe(["committee:2"])
      void feed.subscribe(["committee:3"])
      return snapshot(db)
    },
  })
  await reaches("live")
  const channels = () => Object.keys(relay.relay.status().hub.channels).sort().join()
  await until("the channels are as wanted", () => channels() === "committee:1,committee:3")
  await db.query("insert into vote (committee_id) values (1), (2), (3)")
  await count(2)
  t.same(
    changes.map((change) => ("data" in change ? change.data?.committee_id : undefined)),
    [1, 3],
  )
})

t.test("a feed that is closed by a listener tells nothing of what was held back", async (t) => {
  const { db, relay, url } = await start(t)
  const other = await relay.connect()
  let frames = 0
  const { feed, reaches, changes } = openFeed(t, {
    url,
    parse(text) {
      frames++
      return JSON.parse(text)
    },
    async resync() {
      const before = frames
      await db.query("insert into vote (votes) values (1), (2), (3)")
      await other.count(3)
      await until("they have come", () => frames >= before + 3)
      return undefined
    },
  })
  feed.on("change", () => feed.close())
  await reaches("closed")
  t.equal(changes.length, 1)
})

t.test("a cursor that cannot be continued is told, and the state is loaded", async (t) => {
  const { db, relay } = await start(t)
  await db.query("insert into vote (votes) values (1)")
  const { cursor } = await snapshot(db)
  const [lineage, position] = cursor.split(/:(.*)/) as [string, string]
  for (const [given, reason] of [
    [`another:${position}`, "lineage"],
    ["nonsense", "malformed"],
    [`${lineage}:9000000000:9000000000:`, "ahead"],
  ] as const) {
    const reasons: Why[] = []
    const { resyncs, reaches } = openFeed(t, {
      url: relay.url,
      cursor: given,
      async resync(why) {
        reasons.push(why.reason)
        return { cursor }
      },
    })
    await reaches("live")
    t.same([resyncs, reasons], [[reason], [reason]])
    const without = await followRelay(t, relay, { cursor: given })
    t.same(without.resyncs, [reason], "by the event alone, where there is no hook")
    await db.query("insert into vote (votes) values (2)")
    await without.count(1)
  }
})

t.test("a change that cannot be applied is delivered, and then the state is loaded", async (t) => {
  const { db, url } = await start(t)
  await db.query(`
    create table ballot (id int primary key, votes int) partition by range (id);
    create table ballot_low partition of ballot for values from (0) to (100);
    select relay.track('ballot', type => 'ballot_update');
    insert into ballot values (1, 1)`)
  const table = buildTable()
  const reasons: Why[] = []
  const hooked = openFeed(t, {
    url,
    types: ["voting_update", "ballot_update"],
    async resync({ reason }) {
      reasons.push(reason)
      const { cursor, rows } = await snapshot(db)
      table.load(rows)
      return { cursor }
    },
  })
  hooked.feed.on("voting_update", (change) => {
    if (change.action === "truncate") table.load([])
    else if (change.action !== "bulk_load") table.apply(change)
  })
  await hooked.reaches("live")
  const without = openFeed(t, { url })
  await without.reaches("live")

  await db.query("insert into vote (votes) values (1)")
  await db.query(
    "begin; set local relay.bulk_load = 'summary'; insert into vote (votes) values (2), (3); commit",
  )
  await hooked.came("live", 2)
  await db.query("insert into vote (votes) values (4)")
  await db.query("truncate ballot_low")
  await hooked.came("live", 3)
  await db.query("truncate vote")
  await db.query("insert into vote (votes) values (5)")
  await without.count(6)
  await hooked.count(6)
  t.same(reasons, ["no_cursor", "bulk_load", "truncate"], "a whole table that is emptied needs no load")
  t.same(hooked.resyncs, reasons)
  t.same(without.resyncs, reasons, "by the event alone, where there is no hook")
  t.same(
    without.states.map(({ kind }) => kind),
    ["authenticating", "opening", "live"],
  )
  t.same(
    hooked.changes.map(({ id }) => id),
    without.changes.map(({ id }) => id),
    "each change is delivered once",
  )
  t.same(table.rows(), (await snapshot(db)).rows)
  t.same(table.faults, [])
})

t.test("a load that fails is tried again, and the feed is not live until one has succeeded", async (t) => {
  const { db, url } = await start(t)
  let attempts = 0
  const { errors, states, reaches, count, rows } = openFeed(t, {
    url,
    // One that throws without having begun is no different.
    resync() {
      if (++attempts === 1) throw new Error("not today")
      if (attempts === 2) return Promise.reject(new Error("nor tomorrow"))
      return snapshot(db)
    },
  })
  await reaches("live")
  t.equal(attempts, 3)
  t.match(errors, [
    { code: "resync", message: "the state was not loaded: not today" },
    { code: "resync", message: "the state was not loaded: nor tomorrow" },
  ])
  t.same(
    states.map(({ kind }) => kind).filter((kind) => kind !== "catching_up"),
    [
      "authenticating",
      "opening",
      "stale",
      "loading",
      "stale",
      "loading",
      "stale",
      "loading",
      "joining",
      "live",
    ],
  )
  await db.query("insert into vote (votes) values (1)")
  await count(1)
  t.same(rows(), [1])
})

t.test("a hook whose cursor cannot be continued is called again", async (t) => {
  const { db, url } = await start(t)
  let attempts = 0
  const { errors, reaches, count } = openFeed(t, {
    url,
    resync: async () => (++attempts === 1 ? { cursor: "another:1:1:" } : snapshot(db)),
  })
  await reaches("live")
  t.equal(attempts, 2)
  t.match(errors, [{ code: "resync", message: "the cursor that was loaded cannot be continued (lineage)" }])
  await db.query("insert into vote (votes) values (1)")
  await count(1)
})

t.test(
  "a connection that is lost while the state is loaded aborts the load, and the next begins another",
  async (t) => {
    const { db, proxy, url } = await start(t)
    const signals: AbortSignal[] = []
    const { reaches, count, rows, errors, changes } = openFeed(t, {
      url,
      resync({ signal }) {
        signals.push(signal)
        if (signals.length > 1) return snapshot(db)
        return new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason))
        })
      },
    })
    await reaches("loading")
    await db.query("insert into vote (votes) values (1)")
    proxy.cut()
    await reaches("live")
    t.same(
      signals.map(({ aborted }) => aborted),
      [true, false],
    )
    t.same(errors, [])
    t.same(changes, [], "what was loaded does not come again")
    await db.query("insert into vote (votes) values (2)")
    await count(1)
    t.same(rows(), [2])
  },
)

t.test("a connection that is lost after the load goes on from what was loaded", async (t) => {
  const { db, proxy, url } = await start(t)
  let loads = 0
  const { feed, came, count, rows } = openFeed(t, {
    url,
    resync() {
      loads++
      return snapshot(db)
    },
  })
  const stop = feed.on("state", ({ kind }) => {
    if (kind !== "joining") return
    stop()
    proxy.cut()
  })
  await came("live", 1)
  await db.query("insert into vote (votes) values (1)")
  await count(1)
  t.same(rows(), [1])
  t.equal(loads, 1)
})

t.test("more than can be held back makes a hook without a cursor run again", async (t) => {
  const { db, relay } = await start(t)
  let loads = 0
  let frames = 0
  const { reaches, errors, changes } = openFeed(t, {
    url: relay.url,
    parse(text) {
      frames++
      return JSON.parse(text)
    },
    async resync() {
      if (++loads > 1) return undefined
      await db.query("insert into vote (votes) select generate_series(1, 10100)")
      await until("all of it has come", () => frames > 10_100)
      return undefined
    },
  })
  await reaches("live")
  t.equal(loads, 2)
  t.match(errors, [{ code: "resync", message: "too much happened while it was loaded" }])
  t.same(changes, [], "what was written before the second load is in it")
})

t.test(
  "while the relay is away the state is loaded all the same, once, and gone on from later",
  async (t) => {
    const { db, proxy, url } = await start(t)
    proxy.refuse()
    await db.query("insert into vote (votes) values (1)")
    const reasons: Why[] = []
    const table = buildTable()
    const { feed, changes, came, reaches, count, resyncs, errors } = openFeed(t, {
      url,
      async resync({ reason }) {
        reasons.push(reason)
        const { cursor, rows } = await snapshot(db)
        table.load(rows)
        return { cursor }
      },
    })
    feed.on("change", (change) => table.apply(change))
    await came("waiting", 2)
    await until("there is something to show", () => table.rows().length === 1)
    await db.query("insert into vote (votes) values (2)")
    proxy.heal()
    await reaches("live")
    await count(1)
    t.same(table.rows(), (await snapshot(db)).rows)
    t.same(reasons, ["unreachable"])
    t.same(resyncs, [])
    t.equal(changes.length, 1)
    t.same(
      errors.filter(({ code }) => code !== "connection"),
      [],
    )
  },
)

t.test("what was loaded without a cursor while the relay was away is loaded again with it", async (t) => {
  const { proxy, url } = await start(t)
  proxy.refuse()
  const reasons: Why[] = []
  const { came, reaches } = openFeed(t, {
    url,
    async resync({ reason }) {
      reasons.push(reason)
      if (reasons.length === 1) throw new Error("the back end is away too")
    },
  })
  await came("waiting", 3)
  t.same(reasons, ["unreachable", "unreachable"], "it is tried until it has brought something")
  proxy.heal()
  await reaches("live")
  t.same(reasons, ["unreachable", "unreachable", "no_cursor"])
})
