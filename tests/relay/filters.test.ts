/** Filters over real sockets: what is told live, by replay and of deletes, and how a filter is stated and changed. */

import t, { type Test } from "tap"
import type { Client, Received } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow } from "../helpers/log.ts"
import { metricOf, startRelay, token } from "../helpers/relay.ts"
import { settle } from "../helpers/settle.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

/** A filter as it stands in the query string of an upgrade. */
function query({ where, ...lists }: { where?: object; types?: string[]; actions?: string[] }): string {
  const parameters = new URLSearchParams()
  if (where !== undefined) parameters.set("where", JSON.stringify(where))
  for (const [name, values] of Object.entries(lists)) parameters.set(name, values.join(","))
  return `?${parameters}`
}

let requests = 0

/** Sends a message and waits for its answer. */
function ask(client: Client, message: object): Promise<Received> {
  const request = ++requests
  client.send({ ...message, request })
  return client.first(`the answer to ${JSON.stringify(message)}`, (answer) => answer.request === request)
}

/** What a client was told, as `update 3` for the row with the id 3. */
const told = (client: Client, since = 0) =>
  client
    .changes()
    .slice(since)
    .map(({ action, key, type }) => [action ?? type, key?.id].filter((part) => part !== undefined).join(" "))

const insert = (db: Database, ...rows: [id: number, committee: number | null, votes: number][]) =>
  db.query(
    `insert into vote (id, committee_id, votes) values ${rows.map((row) => `(${row.map((value) => value ?? "null")})`)}`,
  )

t.test(
  "a row that enters the filter is created, one that leaves it leaves, deletes go by the old row",
  async (t) => {
    const { db, relay } = await start(t)
    const many = await relay.connect({}, query({ where: { votes: { gte: 100 } } }))
    const seven = await relay.connect(
      { sub: "8" },
      query({ where: { committee_id: 7, votes: { gte: 100 } } }),
    )
    const all = await relay.connect({ sub: "9" })
    await insert(db, [1, 7, 50], [2, 7, 150], [3, 8, 200], [4, null, 0])
    await db.query("update vote set votes = votes + 60")
    await db.query("update vote set votes = 99 where id = 2")
    await db.query("update vote set committee_id = 7 where id = 3")
    await db.query("update vote set committee_id = 8 where id = 1")
    await db.query("delete from vote where id = 1; delete from vote where id = 3; delete from vote")
    await settle(db, relay, many, seven, all)
    t.same(told(many), [
      "create 2",
      "create 3",
      "create 1",
      "update 2",
      "update 3",
      "leave 2",
      "update 3",
      "update 1",
      "delete 1",
      "delete 3",
    ])
    t.same(told(seven), ["create 2", "create 1", "update 2", "leave 2", "create 3", "leave 1", "delete 3"])
    t.equal(told(all).length, 15)
    const [leave] = seven.changes().filter(({ action }) => action === "leave")
    t.same(
      Object.keys(leave ?? {}).sort(),
      ["action", "at", "id", "key", "table", "tx", "type"],
      "only its key is told",
    )
  },
)

t.test("a filter never widens what a token or the channels allow", async (t) => {
  const { db, relay } = await start(t)
  const where = { committee_id: { in: [7, 8] } }
  const narrowed = await relay.connect({ committees: [7] }, query({ where }))
  const joined = await relay.connect({ sub: "8" }, `${query({ where })}&channels=committee:8`)
  const own = await relay.connect(
    { sub: "5" },
    `${query({ where: { status: "confirmed" } })}&channels=committee:9`,
  )
  await insert(db, [1, 7, 1], [2, 8, 1], [3, 9, 1])
  await db.query("update vote set committee_id = 8 where id = 1")
  await db.query(
    "insert into guarantee (id, user_id, status) values (4, 5, 'pledged'), (5, 5, 'confirmed'), (6, 6, 'confirmed')",
  )
  await settle(db, relay, narrowed, joined, own)
  t.same(told(narrowed), ["create 1", "leave 1"])
  t.same(told(joined), ["create 2", "create 1"])
  t.same(told(own), ["create 5"], "of the own rows too only those that the filter lets pass")
})

t.test("types and actions choose among the messages; what is no row has no columns", async (t) => {
  const { db, relay } = await start(t)
  const clients = {
    votes: await relay.connect({}, query({ types: ["voting_update"] })),
    messages: await relay.connect({}, query({ types: ["message"] })),
    "new and gone": await relay.connect({}, query({ actions: ["create", "delete"] })),
    "new ones with 2 votes": await relay.connect({}, query({ where: { votes: 2 }, actions: ["create"] })),
    "whatever leaves 1 vote": await relay.connect({}, query({ where: { votes: 1 }, actions: ["leave"] })),
    "tables with 1 vote": await relay.connect(
      {},
      query({ where: { votes: 1 }, actions: ["truncate", "bulk_load"] }),
    ),
    "1 vote": await relay.connect({}, query({ where: { votes: 1 } })),
  }
  await insert(db, [1, 7, 1])
  await db.query("insert into guarantee (id) values (2)")
  await db.query("update vote set votes = 2")
  await db.query("delete from vote")
  await db.query("select relay.broadcast('election_updates', '1')")
  await db.query("truncate guarantee")
  await db.query(
    "begin; set local relay.bulk_load = 'summary'; insert into vote (votes) values (5), (6); commit",
  )
  await settle(db, relay, ...Object.values(clients))
  t.same(Object.fromEntries(Object.entries(clients).map(([name, client]) => [name, told(client)])), {
    votes: ["create 1", "update 1", "delete 1", "bulk_load"],
    messages: ["message"],
    "new and gone": ["create 1", "create 2", "delete 1", "message"],
    "new ones with 2 votes": ["create 1", "message"],
    "whatever leaves 1 vote": ["leave 1", "message"],
    "tables with 1 vote": ["message", "truncate", "bulk_load"],
    "1 vote": ["create 1", "leave 1", "message", "truncate", "bulk_load"],
  })
})

t.test("values compare as they are in the table, beyond what a double holds", async (t) => {
  const { db, relay } = await start(t)
  await db.query(`
    create table tally (id bigint primary key, share numeric, at timestamptz, local timestamp, open boolean, name text);
    select relay.track('tally')`)
  const passing = async (where: object) => relay.connect({}, query({ where }))
  const clients = {
    "a bigint": await passing({ id: "9007199254740993" }),
    "above a bigint": await passing({ id: { gt: "9007199254740993" } }),
    "a numeric": await passing({ share: { gte: "0.10", lt: "0.1000000000000000001" } }),
    "from an instant on": await passing({ at: { gte: "2026-11-03T20:00:00Z" } }),
    "an instant": await passing({ at: "2026-11-03T21:00:00.000+01:00" }),
    "before a local time": await passing({ local: { lt: "2026-11-03T20:00:00.5" } }),
    open: await passing({ open: true }),
    unnamed: await passing({ name: null }),
    named: await passing({ name: { neq: null } }),
    "by name": await passing({ name: { in: ['a "quoted"\nname', "é"] } }),
    "no such column": await passing({ nome: "é" }),
  }
  await db.query(`
    set timezone = 'Asia/Tokyo';
    insert into tally values
      (9007199254740992, 0.1, '2026-11-03 20:00:00+00', '2026-11-03 20:00', true, null),
      (9007199254740993, 0.1000000000000000001, '2026-11-03 20:00:00.5+00', '2026-11-03 20:00:00.5', false, E'a "quoted"\\nname'),
      (9007199254740994, 0.0999999999999999999, '2026-11-03 19:59:59.999999+00', '2026-11-03 20:00:00.49', null, 'é')`)
  await settle(db, relay, ...Object.values(clients))
  const last = (client: Client) => client.changes().map(({ key }) => String(key?.id).slice(-1))
  t.same(Object.fromEntries(Object.entries(clients).map(([name, client]) => [name, last(client)])), {
    "a bigint": ["3"],
    "above a bigint": ["4"],
    "a numeric": ["2"],
    "from an instant on": ["2", "3"],
    "an instant": ["2"],
    "before a local time": ["2", "4"],
    open: ["2"],
    unnamed: ["2"],
    named: ["3", "4"],
    "by name": ["3", "4"],
    "no such column": [],
  })
})

for (const source of ["memory", "log"]) {
  t.test(`who returns is told what its filter lets pass, from the ${source}`, async (t) => {
    const db = await database(t)
    await db.query("select relay.meet_lineage()")
    const before = await startRelay(t, db)
    await insert(db, [1, 7, 1], [2, 7, 5], [3, 8, 5])
    const cursor = await cursorNow(db)
    const witness = await before.connect()
    await db.query("update vote set votes = 6 where id in (1, 3)")
    await db.query("update vote set votes = 1 where id = 2")
    await db.query("delete from vote")
    await db.query("truncate vote")
    await witness.count(7)
    const relay = source === "memory" ? before : await startRelay(t, db)
    const filter = query({ where: { committee_id: 7, votes: { gte: 5 } } })
    const client = await relay.connect({ sub: "8" }, `${filter}&cursor=${cursor}`)
    const other = await relay.connect(
      { sub: "8" },
      `${query({ where: { committee_id: 8 }, actions: ["delete"] })}&cursor=${cursor}`,
    )
    const ends = await Promise.all(
      [client, other].map((each) =>
        each.first("the end", ({ replayed, type }) => type === "checkpoint" && replayed !== undefined),
      ),
    )
    t.same(told(client), ["create 1", "leave 2", "delete 1", "truncate"])
    t.same(told(other), ["delete 3"])
    t.same(
      ends.map(({ replayed }) => replayed),
      [4, 1],
      "what did not pass is not counted",
    )
    t.ok((await metricOf(relay, "relay_resume_total", `result="${source}"`)) > 0)
    await insert(db, [4, 7, 5], [5, 8, 5])
    await settle(db, relay, client, other)
    t.same(told(client, 4), ["create 4"], "and live goes on with it")
    t.same(told(other, 1), [])
  })
}

t.test("on the open socket each field that is named replaces what was, and the others stay", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect({}, query({ where: { committee_id: 7 }, actions: ["create"] }))
  let id = 0
  let seen = 0
  /** What comes of a new row in each of the committees 7 and 8, and of both deleted. */
  const probe = async () => {
    await insert(db, [++id, 7, 1], [++id, 8, 1])
    await db.query("delete from vote")
    await settle(db, relay, client)
    const found = told(client, seen).map((what) => what.replace(String(id - 1), "7").replace(String(id), "8"))
    seen += found.length
    return found
  }
  t.same(await probe(), ["create 7"])
  const answer = await ask(client, { type: "subscribe", where: { committee_id: 8 } })
  t.match(answer, { type: "subscribed", channels: [], recovered: false, reason: "no_cursor" })
  t.same(await probe(), ["create 8"])
  await ask(client, { type: "subscribe", channels: ["committee:7"], actions: null })
  t.same(await probe(), ["create 8", "delete 8"], "channels do not widen the filter")
  await ask(client, { type: "subscribe", where: null })
  t.same(await probe(), ["create 7", "create 8", "delete 7", "delete 8"])
  await ask(client, { type: "unsubscribe", channels: ["election_updates"] })
  t.same(await probe(), ["create 7", "delete 7"])
  await ask(client, { type: "subscribe", types: ["message"] })
  await ask(client, { type: "subscribe", channels: ["election_updates"] })
  t.same(await probe(), [], "a subscription that names no filter keeps the one that there is")
  await until("no lane is left behind", () => relay.relay.status().hub.lanes === 1)
})

t.test("a filter and a cursor in one message: what was missed comes through the new filter", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect({}, query({ where: { committee_id: 7 } }))
  const cursor = String(client.messages[0]?.cursor)
  await insert(db, [1, 7, 1], [2, 8, 1])
  await client.count(1)
  const message = { type: "subscribe", channels: ["election_updates"], where: { committee_id: 8 }, cursor }
  t.match(await ask(client, message), { type: "subscribed", recovered: true })
  await client.count(2)
  await insert(db, [3, 7, 1], [4, 8, 1])
  await settle(db, relay, client)
  t.same(told(client), ["create 1", "create 2", "create 4"])
})

t.test("what is no filter is answered with an error that says what to do, and nothing changes", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect({}, query({ where: { committee_id: 7 } }))
  for (const [fields, message] of [
    [
      { where: { votes: { between: [1, 2] } } },
      "where.votes: the operators are eq, neq, in, lt, lte, gt, gte",
    ],
    [
      { where: { votes: { gt: 2 ** 60 } } },
      "where.votes.gt: a number of more than 15 digits must be sent as a string",
    ],
    [{ where: "votes = 1" }, /^where: must be an object/],
    [{ channels: ["committee:8"], where: { votes: [] } }, /^where\.votes: must be/],
    [{ actions: ["insert"] }, /^actions\.0: .*"create"/],
    [{ types: [] }, /^types: /],
    [{}, "name channels, or where, types or actions"],
  ] as const)
    t.match(await ask(client, { type: "subscribe", ...fields }), {
      type: "error",
      code: "bad_message",
      message,
    })
  await insert(db, [1, 7, 1], [2, 8, 1])
  await settle(db, relay, client)
  t.same(told(client), ["create 1"])
})

t.test("in the query string it is told by the close code, which browsers show", async (t) => {
  const { relay } = await start(t)
  for (const [parameters, reason] of [
    ["where=committee_id", "where: not JSON"],
    [
      `where=${encodeURIComponent('{"votes":{"like":1}}')}`,
      "where.votes: the operators are eq, neq, in, lt, lte, gt, gte",
    ],
    ["actions=create,insert", /^actions\.1: Invalid option/],
    [`where=${encodeURIComponent(`{"${"é".repeat(63)}":{}}`)}`, /^where\.éééé/],
  ] as const) {
    const client = await relay.open(`/ws?${parameters}`)
    t.match(await client.closed, { code: 4501, reason }, parameters)
  }
  const empty = await relay.connect({}, "?where=&types=&actions=")
  t.match(empty.messages[0], { type: "connection_success" })
})

t.test("a filter that would make one lane too many is refused, and those of others are not", async (t) => {
  const { db, relay } = await start(t, { MAX_LANES: "2" })
  const seven = query({ where: { committee_id: 7 } })
  const client = await relay.connect({}, seven)
  const plain = await relay.connect()
  const late = await relay.connect({ committees: [9] })
  t.equal(relay.relay.status().hub.lanes, 3, "a token makes a lane all the same")
  const same = await relay.connect({ sub: "8" }, seven)
  t.match(await ask(plain, { type: "subscribe", where: { committee_id: 8 } }), {
    type: "error",
    code: "too_many_filters",
  })
  t.match(await ask(late, { type: "subscribe", channels: ["election_updates"] }), { type: "subscribed" })
  const refused = await relay.open(`/ws${query({ where: { committee_id: 8 } })}`)
  refused.send({ type: "authenticate", token: token() })
  t.match(await refused.closed, { code: 4011, reason: /too many different filters/ })
  await insert(db, [1, 7, 1], [2, 8, 1])
  await settle(db, relay, client, same, plain)
  t.same(
    [client, same, plain].map((each) => told(each)),
    [["create 1"], ["create 1"], ["create 1", "create 2"]],
  )
  for (const each of [late, client, same]) each.socket.close()
  await until("they are gone", () => relay.relay.status().hub.connections === 1)
  t.match(await ask(plain, { type: "subscribe", where: { committee_id: 8 } }), { type: "subscribed" })
})

t.test("connections with the same filter share a lane, in whatever order it is written", async (t) => {
  const { relay } = await start(t)
  await relay.connect(
    {},
    query({ where: { a: 1, b: { in: ["x", "y"] } }, types: ["voting_update", "message"] }),
  )
  await relay.connect(
    {},
    query({ where: { b: { in: ["y", "x"] }, a: { eq: 1 } }, types: ["message", "voting_update"] }),
  )
  t.equal(relay.relay.status().hub.lanes, 1)
  await relay.connect({}, query({ where: { a: 1, b: { in: ["x", "z"] } } }))
  t.equal(relay.relay.status().hub.lanes, 2)
})
