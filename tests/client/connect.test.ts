/** The client on a relay: coming in, channels, and being sent away. */

import t from "tap"
import { WebSocket } from "ws"
import { connect } from "../../client/client.ts"
import { FeedError } from "../../client/error.ts"
import { database } from "../helpers/database.ts"
import { followRelay, openFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.test("changes and messages come, by their types", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { feed, changes, messages, count, states } = await followRelay(t, relay)
  t.same(
    states.map(({ kind }) => kind),
    ["authenticating", "opening", "live"],
  )
  const votes: number[] = []
  const stop = feed.on("voting_update", (change) => {
    if (change.action === "create" && !change.oversize) votes.push(Number(change.data.votes))
  })
  await db.query("insert into vote (votes) values (1), (2)")
  await db.query("insert into guarantee (committee_id) values (3)")
  await db.query("select relay.broadcast('election_updates', '{\"text\": \"soon\"}')")
  await count(3)
  await until("the message", () => messages.length === 1)
  t.same(votes, [1, 2])
  t.same(
    changes.map(({ type }) => type),
    ["voting_update", "voting_update", "guarantee_update"],
  )
  t.match(messages[0], { channel: "election_updates", payload: { text: "soon" } })
  stop()
  await db.query("insert into vote (votes) values (3)")
  await count(4)
  t.same(votes, [1, 2], "who has left hears nothing")
})

t.test("the token travels as a subprotocol and never in the URL", async (t) => {
  const relay = await startRelay(t, await database(t))
  const asked: Array<[string, string[]]> = []
  class Watched extends WebSocket {
    constructor(url: string, protocols: string[]) {
      super(url, protocols)
      asked.push([url, protocols])
    }
  }
  const secret = token()
  await followRelay(t, relay, { token: secret, WebSocket: Watched })
  t.same(asked, [
    [
      `${relay.url.replace("http", "ws")}/ws?channels=election_updates`,
      ["commitcast.v1", `bearer.${secret}`],
    ],
  ])
})

const portOf = (url: string) => Number(new URL(url).port)

t.test("channels come and go on the open connection, and stay over the next", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, portOf(relay.url))
  const follower = openFeed(t, { url: `http://127.0.0.1:${proxy.port}`, channels: ["committee:1"] })
  const { feed, changes, count, came, states } = follower
  const early = feed.subscribe(["committee:2"])
  await follower.reaches("live")
  await early
  await feed.subscribe(["committee:3", "committee:4"])
  await feed.subscribe(["committee:2"])
  feed.unsubscribe(["committee:3"])
  const channels = () => Object.keys(relay.relay.status().hub.channels).sort().join()
  await until("the third is gone", () => channels() === "committee:1,committee:2,committee:4")
  const write = () => db.query("insert into vote (committee_id) values (1), (2), (3), (4), (5)")
  await write()
  await count(3)
  t.equal(states.filter(({ kind }) => kind === "opening").length, 1, "all on one connection")
  proxy.cut()
  await came("waiting", 1)
  feed.unsubscribe(["committee:4"])
  const late = feed.subscribe(["committee:5"])
  await came("live", 2)
  await late
  t.equal(channels(), "committee:1,committee:2,committee:5")
  await write()
  await count(6)
  t.same(
    changes.map((change) => ("data" in change ? change.data?.committee_id : undefined)),
    [1, 2, 4, 1, 2, 5],
  )
})

t.test("with no channel left, only the own messages come, also on the next connection", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, portOf(relay.url))
  const { feed, changes, messages, reaches, came } = openFeed(t, { url: `http://127.0.0.1:${proxy.port}` })
  await reaches("live")
  feed.unsubscribe(["election_updates"])
  await until("it is left", () => relay.relay.status().hub.channels.election_updates === undefined)
  proxy.refuse()
  proxy.cut()
  await came("waiting", 1)
  await db.query("insert into vote default values")
  proxy.heal()
  await came("live", 2)
  await db.query("insert into vote default values")
  await db.query("select relay.send_to_user('7', '1')")
  await until("the message", () => messages.length === 1)
  t.same(changes, [])
})

t.test("a channel that is not allowed is refused to its asker, and the feed goes on", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const proxy = await startProxy(t, portOf(relay.url))
  const { feed, errors, count, reaches, came } = openFeed(t, {
    url: `http://127.0.0.1:${proxy.port}`,
    token: token({ committees: [1] }),
    channels: ["committee:1"],
  })
  await reaches("live")
  const refused = feed.subscribe(["committee:1", "committee:2"])
  await t.rejects(refused, { name: "FeedError", code: "relay", message: /forbidden_channel/ })
  t.match(errors, [{ code: "relay" }])
  proxy.cut()
  await came("live", 2)
  await db.query("insert into vote (committee_id) values (1)")
  await count(1)
})

t.test("a closed feed stays closed, and says nothing more", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { feed, states, changes } = await followRelay(t, relay)
  const other = await relay.connect()
  feed.on("voting_update", () => feed.close())
  await db.query("insert into vote (votes) values (1), (2), (3)")
  await other.count(3)
  await until("the relay has heard", () => relay.relay.status().hub.connections === 1)
  t.equal(changes.length, 1, "not even what came together with the last")
  feed.close()
  t.equal(states.filter(({ kind }) => kind === "closed").length, 1)
})

t.test("a feed that is closed at once never connects", async (t) => {
  const { feed, states, reaches } = openFeed(t, { url: "ws://127.0.0.1:1" })
  feed.close()
  await reaches("closed")
  t.same(
    states.map(({ kind }) => kind),
    ["closed"],
  )
})

t.test("it waits for a relay that is not there yet", async (t) => {
  const relay = await startRelay(t, await database(t))
  const proxy = await startProxy(t, portOf(relay.url))
  proxy.refuse()
  const { came, reaches, states } = openFeed(t, { url: `ws://127.0.0.1:${proxy.port}/ws` })
  await came("waiting", 2)
  proxy.heal()
  await reaches("live")
  const waits = states.filter(({ kind }) => kind === "waiting")
  t.match(waits[0], { attempt: 1, cause: /^closed with 1006/ })
  t.match(waits[1], { attempt: 2 })
})

t.test("a listener that throws harms nobody, and is reported", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { feed, errors, count } = openFeed(t, { url: relay.url })
  const failure = new Error("no room")
  feed.on("voting_update", () => {
    throw failure
  })
  feed.on("state", () => {
    throw failure
  })
  await until("it is live", () => feed.state.kind === "live")
  await db.query("insert into vote (votes) values (1), (2)")
  await count(2)
  const ofChanges = errors.filter(({ message }) => message === "a listener to voting_update threw: no room")
  t.equal(ofChanges.length, 2)
  t.match(errors[0], { code: "listener", cause: failure })
  t.ok(errors.every((error) => error instanceof FeedError))
})

t.test("numbers beyond a double are read as the caller likes", async (t) => {
  const db = await database(t)
  await db.query(
    "create table ledger (id bigint primary key); select relay.track('ledger', type => 'ledger_update')",
  )
  const relay = await startRelay(t, db)
  const { changes, count } = await followRelay(t, relay, {
    parse: (text) => JSON.parse(text.replaceAll(/:(\d{16,})/g, ':"$1"')),
  })
  await db.query("insert into ledger values (9007199254740993)")
  await count(1)
  t.match(changes[0], { data: { id: "9007199254740993" } })
})

t.test("a parser that makes objects of all numbers changes nothing but what is delivered", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const [row] = await db.query<{ cursor: string }>("select relay.cursor() as cursor")
  const { feed, changes, count, errors } = await followRelay(t, relay, {
    parse: (text) => JSON.parse(text, (_key, value) => (typeof value === "number" ? { value } : value)),
    resync: async () => ({ cursor: row?.cursor as string }),
    channels: ["committee:1"],
  })
  await feed.subscribe(["committee:2"])
  await feed.filter({ where: { votes: { gte: 1 } } })
  await db.query("insert into vote (committee_id, votes) values (2, 5)")
  await count(1)
  t.match(changes[0], { data: { votes: { value: 5 } } })
  t.same(errors, [])
})

t.test("a frame that cannot be read is reported and passed over", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { errors, count } = await followRelay(t, relay, {
    parse(text) {
      if (text.includes('"votes":1,')) throw new Error("not this one")
      if (text.includes('"votes":3,')) return 3
      if (text.includes('"votes":4,')) return { type: "voting_update" }
      if (text.includes('"tx"')) return JSON.parse(text)
      throw new Error("nor any answer")
    },
  })
  errors.length = 0
  await db.query("insert into vote (votes) values (1), (3), (4), (2)")
  await count(1)
  t.match(errors.slice(0, 3), [
    { code: "frame", message: /not this one/ },
    { code: "frame" },
    { code: "frame" },
  ])
})

t.test("what can be no feed is refused where it is asked for", async (t) => {
  t.throws(() => connect({ url: "ws://127.0.0.1/ws", WebSocket }), /a token or getToken is needed/)
  t.throws(() => connect({ url: "nowhere", token: "x", WebSocket }), { code: "ERR_INVALID_URL" })
  const { feed, errors, reaches } = openFeed(t, { url: "ws://127.0.0.1:1", token: "no token, at all" })
  await reaches("closed")
  t.match(errors, [{ code: "refused", message: /subprotocol/ }])
  feed.close()
})

t.test("a listener that removes and adds itself is called once for each change", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { feed, count } = await followRelay(t, relay)
  let calls = 0
  let off = () => {}
  const again = () => {
    calls++
    off()
    off = feed.on("voting_update", again)
  }
  again()
  const twice = () => {
    calls += 100
  }
  const offOne = feed.on("voting_update", twice)
  feed.on("voting_update", twice)
  offOne()
  await db.query("insert into vote (votes) values (1), (2)")
  await count(2)
  t.equal(calls, 1 + 2 + 200, "and of one that was added twice, one is left")
})

t.test("a listener that fails later is reported like one that throws", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { feed, errors } = await followRelay(t, relay)
  const failing: () => unknown = async () => {
    throw new Error("no room")
  }
  feed.on("voting_update", failing as () => void)
  await db.query("insert into vote (votes) values (1)")
  await until("it is reported", () => errors.length === 1)
  t.match(errors, [{ code: "listener", message: "a listener to voting_update threw: no room" }])
})

t.test("a table whose type is the name of an event disturbs no listener", async (t) => {
  const db = await database(t)
  await db.query("create table state (id int primary key); select relay.track('state', type => 'state')")
  const relay = await startRelay(t, db)
  const { changes, states, count } = await followRelay(t, relay)
  const known = states.length
  await db.query("insert into state values (1)")
  await count(1)
  t.match(changes, [{ type: "state" }])
  t.equal(states.length, known)
})

t.test("every state says why it is, and since when", async (t) => {
  const before = Date.now()
  const relay = await startRelay(t, await database(t))
  const { feed, states } = await followRelay(t, relay)
  feed.close()
  t.same(
    states.map(({ kind, cause }) => `${kind}: ${cause}`),
    [
      "authenticating: asking for a token",
      "opening: connecting to the relay",
      "live: connected, and up to date",
      "closed: closed by the caller",
    ],
  )
  t.ok(states.every(({ since }) => since >= before && since <= Date.now()))
})
