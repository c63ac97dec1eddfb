/** The client's filter: stated at once, changed on the open connection, and kept over whatever happens to it. */

import t from "tap"
import { WebSocket } from "ws"
import { database } from "../helpers/database.ts"
import { followRelay, openFeed } from "../helpers/feed.ts"
import { processOn } from "../helpers/process.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 2

t.test("it is changed on the open connection, field by field", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const where = { committee_id: { in: [7, 8] } }
  const { feed, changes, messages, rows, count, states } = await followRelay(t, relay, { where })
  await db.query("insert into vote (id, committee_id) values (1, 7), (2, 9), (3, 8)")
  await count(2)
  await feed.filter({ where: { committee_id: 9 }, actions: ["create"] })
  await db.query("insert into vote (id, committee_id) values (4, 7), (5, 9); delete from vote")
  await count(3)
  await feed.filter({ where: undefined, actions: null })
  await db.query("insert into vote (id, committee_id) values (6, 7), (7, 9)")
  await count(4)
  await feed.filter({ where: null, types: ["message"] })
  await db.query(
    "insert into vote (id, committee_id) values (8, 9); select relay.broadcast('election_updates', '1')",
  )
  await until("the message", () => messages.length === 1)
  t.same(rows(), [1, 3, 5, 7])
  t.same(new Set(changes.map(({ action }) => action)), new Set(["create"]))
  t.equal(states.filter(({ kind }) => kind === "opening").length, 1, "all on one connection")
})

t.test("one that is refused is refused to its asker alone, and what was before holds on", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  const where = { committee_id: 7 }
  const { feed, errors, rows, count, reaches, came } = openFeed(t, {
    url: `http://127.0.0.1:${proxy.port}`,
    where,
  })
  await reaches("live")
  const wrong = { where: { votes: { between: 1 } } } as object
  await t.rejects(feed.filter(wrong), {
    name: "FeedError",
    code: "relay",
    message: /bad_message: where\.votes: the operators/,
  })
  t.match(errors, [{ code: "relay" }])
  proxy.refuse()
  proxy.cut()
  await came("waiting", 1)
  const later = feed.filter(wrong)
  const right = feed.filter({ actions: ["delete"] })
  proxy.heal()
  await t.rejects(later, { code: "relay" })
  await right
  await came("live", 2)
  proxy.silence()
  const unanswered = feed.filter({ types: ["voting_update"] })
  proxy.cut()
  await unanswered
  t.equal(feed.state.kind, "live", "what was not answered is asked again on the next connection")
  await db.query("insert into vote (id, committee_id) values (1, 7), (2, 8); delete from vote")
  await count(1)
  t.same(rows(), [1])
})

t.test("a feed that is closed, or was never let in, says so to who waits for a filter", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { feed } = await followRelay(t, relay)
  const asked = feed.filter({ types: ["voting_update"] })
  feed.close()
  await t.rejects(asked, { code: "refused" })
  await t.rejects(feed.filter({ types: null }), { code: "refused" })
})

t.test("one that is wrong from the beginning is told, and can be mended", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { feed, errors, came, reaches, rows, count } = openFeed(t, { url: relay.url, where: { votes: {} } })
  await came("waiting", 2)
  t.match(errors[0], { code: "connection", message: "closed with 4501: where.votes: names no operator" })
  t.equal(errors.length, 1, "and not again and again")
  await feed.filter({ where: { votes: 2 } })
  await reaches("live")
  await db.query("insert into vote (id, votes) values (1, 1), (2, 2)")
  await count(1)
  t.same(rows(), [2])
})

t.test(
  "one that no URL can say is kept over a lost connection, and is in force before a change comes",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const proxy = await startProxy(t, Number(new URL(relay.url).port))
    const long = Array.from({ length: 200 }, (_, i) => `${i} ${"ä".repeat(25)}`)
    await db.query(
      "create table note (name text primary key); select relay.track('note', type => 'note_update')",
    )
    const { feed, changes, resyncs, reaches, came, count } = openFeed(t, {
      url: `http://127.0.0.1:${proxy.port}`,
      where: { name: { in: long } },
    })
    await reaches("live")
    await feed.filter({ where: { name: { in: [...long, "a", "b"] } } })
    proxy.refuse()
    proxy.cut()
    await came("waiting", 1)
    await db.query("insert into note values ('a'), ('c')")
    proxy.heal()
    await came("live", 2)
    await db.query("insert into note values ('d'), ('b')")
    await count(2)
    t.same(
      changes.map((change) => ("key" in change ? change.key.name : "")),
      ["a", "b"],
    )
    t.same(resyncs, ["no_cursor"])
  },
)

t.test("one that is too long for any frame is refused at once, at the beginning and later", async (t) => {
  const relay = await startRelay(t, await database(t))
  const where = { status: { in: Array.from({ length: 200 }, (_, i) => `${i} ${"x".repeat(100)}`) } }
  t.throws(() => openFeed(t, { url: relay.url, where }), { name: "FeedError", message: /too long/ })
  const { feed, states } = await followRelay(t, relay)
  await t.rejects(feed.filter({ where }), { name: "FeedError", message: /too long/ })
  await feed.filter({ types: ["voting_update"] })
  t.equal(states.filter(({ kind }) => kind === "opening").length, 1)
})

t.test("after the relay was killed it resumes with its filter", async (t) => {
  const db = await database(t)
  const relay = await processOn(t, db.url)
  let running = await relay.start()
  const asked: URL[] = []
  class Watched extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols)
      asked.push(new URL(url))
    }
  }
  const where = { committee_id: 7 }
  const { feed, changes, came, reaches, count, resyncs } = openFeed(t, {
    url: relay.url,
    where,
    WebSocket: Watched,
  })
  await reaches("live")
  await feed.filter({ where: { committee_id: 7, votes: { gte: 10 } }, types: ["voting_update"] })
  await db.query("insert into vote (id, committee_id, votes) values (1, 7, 10), (2, 7, 9), (3, 8, 10)")
  await count(1)
  running.child.kill("SIGKILL")
  await running.ended
  await came("waiting", 1)
  await db.query(`
    update vote set votes = votes + 1;
    update vote set votes = 5 where id = 1;
    delete from vote;
    insert into guarantee (committee_id) values (7)`)
  running = await relay.start()
  await came("live", 2)
  await db.query("insert into vote (id, committee_id, votes) values (4, 7, 9), (5, 7, 10)")
  await count(6)
  t.same(
    changes.map((change) => `${change.action} ${"key" in change ? change.key.id : ""}`),
    ["create 1", "update 1", "create 2", "leave 1", "delete 2", "create 5"],
  )
  t.same(resyncs, ["no_cursor"], "nothing had to be loaded")
  t.same(JSON.parse(asked.at(-1)?.searchParams.get("where") ?? ""), { committee_id: 7, votes: { gte: 10 } })
  t.equal(asked.at(-1)?.searchParams.get("types"), "voting_update")
})
