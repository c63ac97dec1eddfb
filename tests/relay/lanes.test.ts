/** Who sees what over real sockets: rights, joining and leaving while others write, and what a connection leaves behind. */

import t, { type Test } from "tap"
import type { Client } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { startRelay } from "../helpers/relay.ts"
import { settle } from "../helpers/settle.ts"
import { until } from "../helpers/wait.ts"

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

const committees = (client: Client) => client.changes().map(({ data }) => data?.committee_id)

t.test("claims narrow what is seen, all of them at once", async (t) => {
  const { db, relay } = await start(t)
  const connect = (claims: Record<string, unknown>, query?: string) => relay.connect(claims, query)
  const clients = {
    "no claim": await connect({}),
    "committee 1": await connect({ committees: ["1"] }),
    "election 1": await connect({ elections: [1] }),
    both: await connect({ committees: ["1"], elections: ["1"] }),
    "no committee": await connect({ committees: [] }),
    "no election": await connect({ elections: [] }),
    "no channel": await connect({ channels: [] }),
    "channel of committee 1": await connect({ channels: ["committee:1"] }),
    "channel election_updates": await connect({ channels: ["election_updates"] }),
    "a committee that joined it": await connect({ committees: ["1", "2"] }, "?channels=committee:2"),
  }
  await db.query(
    "insert into vote (committee_id, election_id, votes) values (1, 1, 11), (1, null, 10), (2, 1, 21), (null, 1, 1), (null, null, 0)",
  )
  await settle(db, relay, ...Object.values(clients))
  t.same(
    Object.fromEntries(
      Object.entries(clients).map(([name, client]) => [
        name,
        client.changes().map(({ data }) => data?.votes),
      ]),
    ),
    {
      "no claim": [11, 10, 21, 1, 0],
      "committee 1": [11, 10],
      "election 1": [11, 21, 1],
      both: [11],
      "no committee": [],
      "no election": [],
      "no channel": [],
      "channel of committee 1": [11, 10],
      "channel election_updates": [11, 10, 21, 1, 0],
      "a committee that joined it": [21],
    },
  )
})

t.test("claims narrow a user's own channel too", async (t) => {
  const { db, relay } = await start(t)
  const committee = await relay.connect({ committees: [1] }, "?channels=committee:1")
  const listed = await relay.connect({ channels: ["committee:1"] }, "?channels=committee:1")
  const own = await relay.connect({ channels: ["user:7"] })
  await db.query(`
    insert into guarantee (committee_id, user_id) values (2, 7), (1, 7), (2, 8);
    select relay.send_to_user('7', '"hello"')`)
  await settle(db, relay, committee, listed, own)
  t.same(committees(committee), [1, undefined], "rows of its committee, and the message")
  t.same(committees(listed), [1], "user:7 is not on its list")
  t.same(committees(own), [2, 1, undefined])
})

t.test("a row of a table without the column is hidden from a narrowed token", async (t) => {
  const { db, relay } = await start(t)
  await db.query("create table notice (id int primary key, text text); select relay.track('notice')")
  const all = await relay.connect()
  const narrowed = await relay.connect({ committees: [1] })
  const listed = await relay.connect({ channels: ["election_updates"] })
  await db.query("insert into notice values (1, 'a'); insert into vote (committee_id) values (1)")
  await settle(db, relay, all, narrowed, listed)
  const types = (client: Client) => client.changes().map(({ type }) => type)
  t.same(types(all), ["notice_update", "voting_update"])
  t.same(types(narrowed), ["voting_update"])
  t.same(types(listed), ["notice_update", "voting_update"])
})

t.test("truncate and bulk_load reach those who could see a row of the table, and nobody else", async (t) => {
  const { db, relay } = await start(t)
  await db.query("create table notice (id int primary key, text text); select relay.track('notice')")
  const clients = {
    all: await relay.connect(),
    "committee:1": await relay.connect({}, "?channels=committee:1"),
    "user:7 alone": await relay.connect({}, "?channels=hall:1"),
    "narrowed to a committee": await relay.connect({ committees: [1] }),
    "narrowed to no committee": await relay.connect({ committees: [] }),
    "narrowed to a hall": await relay.connect({ channels: ["hall:1"] }, "?channels=hall:1"),
  }
  await db.query("truncate notice")
  await db.query(
    "begin; set local relay.bulk_load = 'summary'; insert into vote (committee_id) values (1); insert into notice values (1); commit",
  )
  await settle(db, relay, ...Object.values(clients))
  t.same(
    Object.fromEntries(
      Object.entries(clients).map(([name, client]) => [
        name,
        client.changes().map(({ table, action }) => `${table} ${action}`),
      ]),
    ),
    {
      all: ["public.notice truncate", "public.vote bulk_load", "public.notice bulk_load"],
      "committee:1": ["public.vote bulk_load"],
      "user:7 alone": [],
      "narrowed to a committee": ["public.vote bulk_load"],
      "narrowed to no committee": [],
      "narrowed to a hall": [],
    },
  )
})

t.test("truncate of a table with users' rows reaches the users", async (t) => {
  const { db, relay } = await start(t)
  await db.query("create table letter (id int primary key, user_id int); select relay.track('letter')")
  const client = await relay.connect({}, "?channels=committee:1")
  const narrowed = await relay.connect({ channels: ["committee:1"] }, "?channels=committee:1")
  await db.query("insert into letter values (1, 7)")
  await client.count(1)
  await db.query("truncate letter")
  await settle(db, relay, client, narrowed)
  t.same(
    client.changes().map(({ action }) => action),
    ["create", "truncate"],
  )
  t.same(narrowed.changes(), [], "who may not see the user's channel is not told")
})

t.test("a row that moves is told to each side as what it is for it", async (t) => {
  const { db, relay } = await start(t)
  const one = await relay.connect({ sub: "1" }, "?channels=committee:1")
  const two = await relay.connect({ sub: "2" }, "?channels=committee:2")
  const right = await relay.connect({ sub: "3", committees: [2] })
  const seven = await relay.connect({ sub: "7" }, "?channels=committee:9")
  const all = await relay.connect({ sub: "9" })
  await db.query("insert into guarantee (id, committee_id, user_id) values (5, 1, 7)")
  await db.query("update guarantee set committee_id = 2")
  await db.query("update guarantee set user_id = null, id = 6")
  await db.query("update guarantee set committee_id = null")
  await db.query("delete from guarantee")
  await settle(db, relay, one, two, right, seven, all)
  const actions = (client: Client) => client.changes().map(({ action, key }) => `${action} ${key?.id}`)
  t.same(actions(one), ["create 5", "leave 5"])
  t.same(actions(two), ["create 5", "update 6", "leave 6"])
  t.same(actions(right), ["create 5", "update 6", "leave 6"])
  t.same(actions(seven), ["create 5", "update 5", "leave 5"])
  t.same(actions(all), ["create 5", "update 5", "update 6", "update 6", "delete 6"])
  t.match(two.changes()[1], { previous_key: { id: "5" } })
})

t.test("joining and leaving while others write loses and repeats nothing of what stays", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect({}, "?channels=committee:1")
  const [from] = client.messages
  let done = false
  const writers = [1, 2, 1].map(async (committee) => {
    const session = await db.session()
    // Several rows a statement, so that transactions overlap and batches are more than one change.
    while (!done)
      await session.query("insert into vote (committee_id) select $1::int from generate_series(1, 3)", [
        committee,
      ])
  })
  const joined: string[] = []
  for (let round = 0; round < 60; round++) {
    client.send({ type: "subscribe", channels: ["committee:2"], request: round })
    const answer = await client.first("subscribed", (message) => message.request === round)
    joined.push(answer.cursor as string)
    // The rounds must not pass before the writers wrote.
    const known = new Set(client.messages)
    await client.first("a row", (message) => message.data?.committee_id === 2 && !known.has(message))
    client.send({ type: "unsubscribe", channels: ["committee:2"], request: -1 - round })
    await client.first("unsubscribed", (message) => message.request === -1 - round)
  }
  client.send({ type: "subscribe", channels: ["committee:2"], request: "last" })
  const last = await client.first("subscribed", ({ request }) => request === "last")
  const seenBefore = new Set(client.messages.slice(0, client.messages.indexOf(last)).map(({ id }) => id))
  done = true
  await Promise.all(writers)
  await settle(db, relay, client)
  const of = (committee: number) =>
    client
      .changes()
      .filter(({ data }) => data?.committee_id === committee)
      .map(({ id }) => id as string)
  t.equal(new Set(of(1)).size, of(1).length, "nothing of committee 1 came twice")
  t.same(byNumber(of(1)), await logged(db, 1, from?.cursor), "and all of it came")
  t.equal(new Set(of(2)).size, of(2).length, "nothing of committee 2 came twice")
  const afterLast = await logged(db, 2, last.cursor)
  t.ok(
    afterLast.every((id) => of(2).includes(id) && !seenBefore.has(id)),
    "what the cursor does not cover came after it",
  )
  t.ok(new Set(joined).size > 1)
})

const byNumber = (ids: string[]) => [...ids].sort((a, b) => Number(a) - Number(b))

async function logged(db: Database, committee: number, cursor: unknown): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    `select seq::text as id from relay.change
     where (new::json ->> 'committee_id')::int = $1 and not pg_visible_in_snapshot(xid, $2::pg_snapshot) order by seq`,
    [committee, String(cursor).replace(/^[^:]*:/, "")],
  )
  return rows.map(({ id }) => id)
}

t.test("connections that see the same share a lane, and the last one takes it along", async (t) => {
  const { relay } = await start(t)
  const lanes = () => relay.relay.status().hub.lanes
  const clients = [
    await relay.connect({ sub: "1" }),
    await relay.connect({ sub: "2" }),
    await relay.connect({ sub: "2" }, "?channels=election_updates"),
  ]
  t.equal(lanes(), 1)
  clients.push(await relay.connect({}, "?channels=committee:1,committee:2"))
  clients.push(await relay.connect({ sub: "8" }, "?channels=committee:2,committee:1"))
  t.equal(lanes(), 2)
  clients.push(await relay.connect({ committees: ["1", "2"] }), await relay.connect({ committees: [2, 1] }))
  t.equal(lanes(), 3)
  clients.push(await relay.connect({ sub: "9" }, "?channels=user:9,election_updates"))
  t.equal(lanes(), 3, "a user's own channel makes no lane of its own")
  for (const [index, client] of clients.entries()) {
    if (index % 2 === 0) client.socket.terminate()
    else client.socket.close()
  }
  await until("nobody is left", () => relay.relay.status().hub.connections === 0)
  t.same(relay.relay.status().hub, { connections: 0, replaying: 0, users: {}, channels: {}, lanes: 0 })
})

t.test("every way of ending releases what a connection had", async (t) => {
  const { relay } = await start(t, { AUTH_TIMEOUT_SECONDS: "0.2" })
  const disconnects: Record<string, (client: Client) => void> = {
    close: (client) => client.socket.close(1000, "enough"),
    terminate: (client) => client.socket.terminate(),
    "a frame too large": (client) => client.send(" ".repeat(20_000)),
    "a binary frame": (client) => client.socket.send(Buffer.alloc(1)),
    "a bad token": (client) => client.send({ type: "authenticate", token: "x" }),
    "too many errors": (client) => {
      for (let sent = 0; sent < 30; sent++) client.send("?")
    },
  }
  for (const [what, end] of Object.entries(disconnects)) {
    const client = await relay.connect({}, "?channels=committee:1,election:1")
    t.match(relay.relay.status().hub, {
      connections: 1,
      users: { 7: 1 },
      channels: { "committee:1": 1, "election:1": 1 },
      lanes: 1,
    })
    end(client)
    await until(`${what} released`, () => relay.relay.status().hub.connections === 0)
    t.same(
      relay.relay.status().hub,
      { connections: 0, replaying: 0, users: {}, channels: {}, lanes: 0 },
      what,
    )
  }
  const silent = await relay.open("/ws")
  t.match(relay.relay.status().hub, { connections: 1, users: {}, channels: {}, lanes: 0 })
  await silent.closed
  await until("it is gone", () => relay.relay.status().hub.connections === 0)
})
