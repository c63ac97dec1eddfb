/** The channels of a feed: what was asked for is asked for again, what is lost is told, and nobody pays for another's. */

import t, { type Test } from "tap"
import type { Options } from "../../client/client.ts"
import { database } from "../helpers/database.ts"
import { openFeed, type TestFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 4

/** The relay's clock may be 5 s behind, so a token lives 5 s longer than it says. */
const living = (seconds: number, claims: object) =>
  token({ ...claims, exp: Math.floor(Date.now() / 1_000) + seconds - 5 })

async function start(t: Test, settings: Record<string, string> = {}) {
  const db = await database(t)
  const relay = await startRelay(t, db, settings)
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  const open = (options: Partial<Options> = {}) =>
    openFeed(t, { url: `http://127.0.0.1:${proxy.port}`, ...options })
  const write = (...committees: number[]) =>
    db.query("insert into vote (committee_id) select unnest($1::int[])", [committees])
  const joined = () => Object.keys(relay.relay.status().hub.channels).sort().join()
  return { db, relay, proxy, open, write, joined }
}

const committees = ({ changes }: TestFeed) =>
  changes.map((change) => ("data" in change ? change.data?.committee_id : undefined))
const openings = ({ states }: TestFeed) => states.filter(({ kind }) => kind === "opening").length

function deniedOf({ feed }: TestFeed): string[][] {
  const told: string[][] = []
  feed.on("channels", ({ denied }) => told.push(denied))
  return told
}

t.test(
  "one that a renewed token leaves out is told, and comes back with the token that allows it",
  async (t) => {
    const { open, write } = await start(t)
    const claims = [[1, 2], [1], [1, 2]]
    let calls = 0
    const getToken = async () => {
      const allowed = claims[Math.min(calls++, 2)] ?? []
      return calls <= 2 ? living(9, { committees: allowed }) : token({ committees: allowed })
    }
    const follower = open({ getToken, channels: ["committee:1", "committee:2"] })
    const told = deniedOf(follower)
    await follower.reaches("live")
    await until("it is lost", () => told.length === 1)
    t.same(told, [["committee:2"]])
    t.match(follower.errors, [{ code: "channels", message: /committee:2/ }])
    await write(2)
    await until("it is back", () => told.length === 2)
    t.same(told[1], [])
    await until("the gap is told", () => follower.resyncs.length === 2)
    t.same(follower.resyncs, ["no_cursor", "regained"])
    await follower.feed.subscribe(["committee:2"])
    await write(1, 2)
    await follower.count(2)
    t.same(committees(follower), [1, 2])
    t.equal(openings(follower), 1, "all on one connection")
  },
)

t.test("one that is not allowed costs no other, whenever it was asked for", async (t) => {
  const { proxy, open, write } = await start(t)
  const follower = open({
    token: token({ committees: [1, 2] }),
    channels: ["committee:1", "committee:8"],
  })
  const told = deniedOf(follower)
  const early = follower.feed.subscribe(["committee:9"])
  await t.rejects(early, { name: "FeedError", code: "relay", message: /not allowed: committee:9/ })
  t.same(told, [["committee:8"]])
  proxy.refuse()
  proxy.cut()
  await follower.reaches("waiting")
  const away = follower.feed.subscribe(["committee:2", "committee:9"])
  const good = follower.feed.subscribe(["committee:2"])
  proxy.heal()
  await t.rejects(away, { code: "relay" })
  await good
  proxy.cut()
  await follower.came("live", 3)
  await write(1, 2, 8, 9)
  await follower.count(2)
  t.same(committees(follower), [1, 2])
  t.same(told, [["committee:8"]], "it is told once")
})

t.test("one that two have asked for stays when it is refused to one of them with another", async (t) => {
  const { proxy, open, write } = await start(t)
  const follower = open({ token: token({ committees: [1, 2] }), channels: ["committee:1"] })
  await follower.reaches("live")
  const refused = follower.feed.subscribe(["committee:2", "committee:9"])
  const granted = follower.feed.subscribe(["committee:2"])
  await t.rejects(refused, { code: "relay" })
  await granted
  await write(2)
  await follower.count(1)
  proxy.cut()
  await follower.came("live", 2)
  await write(2)
  await follower.count(2)
})

t.test("none is left of those that are wanted, and the feed lives", async (t) => {
  const { open } = await start(t)
  const follower = open({ token: token({ committees: [1] }), channels: ["committee:2"] })
  await follower.reaches("live")
  t.match(follower.errors, [{ code: "channels" }])
  await follower.feed.subscribe(["committee:1"])
})

t.test("an id with a comma, and a name that is none, are what they are in every connection", async (t) => {
  const { db, proxy, open } = await start(t)
  await db.query(`
    create table place (name text primary key);
    select relay.track('place', type => 'place_update', channels => '{"place": "name"}')`)
  const follower = open({ channels: ["place:a,b", "Not A Channel"] })
  const told = deniedOf(follower)
  await follower.reaches("live")
  t.same(told, [["Not A Channel"]])
  await follower.feed.subscribe(["place:c,d"])
  proxy.refuse()
  proxy.cut()
  await follower.reaches("waiting")
  await db.query("insert into place values ('a,b'), ('a'), ('b')")
  proxy.heal()
  await follower.came("live", 2)
  await db.query("insert into place values ('c,d'), ('e')")
  await follower.count(2)
  t.same(
    follower.changes.map((change) => ("key" in change ? change.key.name : "")),
    ["a,b", "c,d"],
  )
  t.same(follower.resyncs, ["no_cursor"], "nothing had to be loaded")
})

t.test("128 asked for one by one, and one too many", async (t) => {
  const { proxy, open, write, joined } = await start(t)
  const follower = open({ channels: ["committee:1"] })
  const name = (_: unknown, i: number) => `committee:${i + 2}`
  const all = Array.from({ length: 127 }, name)
  await Promise.all(all.map((channel) => follower.feed.subscribe([channel])))
  await t.rejects(follower.feed.subscribe(["committee:200"]), {
    code: "channels",
    message: /too many channels/,
  })
  await follower.came("live", 2)
  t.equal(joined().split(",").length, 128)
  proxy.cut()
  await follower.came("live", 3)
  await write(3, 1)
  await follower.count(2)
  t.same(committees(follower).sort(), [1, 3])
})

t.test(
  "more from the beginning than the relay allows: as many as it does, and the others are told",
  async (t) => {
    const { open, joined } = await start(t, { MAX_CHANNELS: "4" })
    const follower = open({ channels: Array.from({ length: 6 }, (_, i) => `committee:${i}`) })
    await follower.reaches("live")
    t.equal(joined().split(",").length, 4)
    t.ok(
      follower.errors.some(({ code, message }) => code === "channels" && /too many channels/.test(message)),
    )
  },
)
