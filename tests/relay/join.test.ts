/**
 * Those who come, change their channels or return at an awkward moment: in the middle of a batch in pages, before a feed
 * that is behind, or just when its session is lost. The feed is held by its line to the database; reads for those who
 * return have another.
 */

import t, { type Test } from "tap"
import { parseCursor, type Snapshot, visible } from "../../relay/change/cursor.ts"
import type { Client, Received } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow } from "../helpers/log.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** More than a page, of which the feed has passed on the first when it is held. */
const ROWS = 5_000
const PAGE = 1_000
const HELD = "in a page that is held up"

const insert = (db: Database, votes: number, committee = 1) =>
  db.query("insert into vote (votes, committee_id) values ($1, $2)", [votes, committee])

const votes = (client: Client) => client.changes().map(({ data }) => data?.votes)

const endOfReplay = ({ type, replayed }: Received): boolean =>
  type === "checkpoint" && typeof replayed === "number"

interface Held {
  relay: TestRelay
  /** Holds the feed from now on. */
  hold(): void
  /** Writes a large transaction, of committees 1 and 2 in turn, and holds the feed after its first page. @returns its xid. */
  holdBatch(): Promise<bigint>
  release(): void
  /** Ends the feed's session. */
  cut(): void
  refuse(): void
  heal(): void
}

async function startHeldRelay(t: Test, db: Database): Promise<Held> {
  let armed = false
  const line = await startProxy(t, db.port, (data) => {
    if (armed && data.includes(HELD)) {
      armed = false
      line.limit(1)
    }
    return data
  })
  const front = await startProxy(t, line.port)
  const relay = await startRelay(t, { url: db.url.replace(`:${db.port}/`, `:${front.port}/`) })
  front.aim(db.port)
  return {
    relay,
    hold: () => line.limit(1),
    async holdBatch() {
      armed = true
      const [row] = await db.query<{ xid: string }>(
        `with written as (
           insert into guarantee (committee_id, voter_name)
           select 1 + n % 2, case when n > 2.5 * $2::int then $3 else 'first' end from generate_series(1, $1::int) n)
         select pg_current_xact_id()::text as xid`,
        [ROWS, PAGE, HELD],
      )
      // Or whoever is quick would release it before.
      await until("the feed is held", () => !armed)
      return BigInt(row?.xid ?? 0)
    },
    release: line.heal,
    cut: line.cut,
    refuse: front.refuse,
    heal: front.heal,
  }
}

/**
 * The rows of a transaction that came, by the ids of their changes. Whoever gets the rest of a batch by another read may be
 * told to load the table besides, since nobody knows any more in what order the rest goes on with it.
 */
const idsOf = (messages: Received[], xid: bigint): Set<string | undefined> =>
  new Set(
    messages.filter(({ tx, action }) => tx?.id === String(xid) && action === "create").map(({ id }) => id),
  )

const holds = ({ cursor }: Received, xid: bigint): boolean =>
  cursor !== undefined && visible(parseCursor(cursor)?.snapshot as Snapshot, xid)

/** How much of a transaction had come when a cursor first claimed it; undefined if none did. */
function claimed({ messages }: Client, xid: bigint): number | undefined {
  const at = messages.findIndex((message) => holds(message, xid))
  return at === -1 ? undefined : idsOf(messages.slice(0, at), xid).size
}

let pings = 0

/** Asks and waits for the answer, several times over: whatever could happen at once has happened then. */
async function settle(client: Client): Promise<void> {
  for (let round = 0; round < 5; round++) {
    const ping = `ping ${pings++}`
    client.send({ type: "ping", request: ping })
    await client.first("the pong", ({ type, request }) => type === "pong" && request === ping)
  }
}

t.test("channels that are joined in the middle of a batch are joined after it", async (t) => {
  const db = await database(t)
  const { relay, holdBatch, release } = await startHeldRelay(t, db)
  const [one, other] = [
    await relay.connect({}, "?channels=committee:1"),
    await relay.connect({}, "?channels=committee:1,committee:2"),
  ]
  const xid = await holdBatch()
  await one.count(PAGE / 2)
  one.send({ type: "subscribe", channels: ["committee:2"], request: "join" })
  other.send({ type: "unsubscribe", channels: ["committee:2"], request: "part" })
  await Promise.all([settle(one), settle(other)])
  for (const client of [one, other])
    t.notOk(
      client.messages.find(({ request }) => request === "join" || request === "part"),
      "not answered yet",
    )
  release()
  const joined = await one.first("the answer", ({ request }) => request === "join")
  const parted = await other.first("the answer", ({ request }) => request === "part")
  t.match(joined, { type: "subscribed", recovered: false, reason: "no_cursor" })
  t.ok(holds(joined, xid) && holds(parted, xid), "whose cursor holds the batch")
  t.equal(claimed(one, xid), ROWS / 2, "all of which was sent before that, of the one channel")
  t.equal(claimed(other, xid), ROWS, "and of both")
  await insert(db, 2, 2)
  await insert(db, 1, 1)
  await one.first("the last", ({ data }) => data?.votes === 1)
  await other.first("the last", ({ data }) => data?.votes === 1)
  t.same(votes(one).slice(ROWS / 2), [2, 1])
  t.same(votes(other).slice(ROWS), [1])
})

t.test("who comes in the middle of a batch sees nothing of it, or all", async (t) => {
  const db = await database(t)
  const { relay, holdBatch, release } = await startHeldRelay(t, db)
  const before = await cursorNow(db)
  const live = await relay.connect()
  const xid = await holdBatch()
  await live.count(PAGE)
  const fresh = await relay.connect()
  const refused = await relay.connect({}, "?cursor=nonsense")
  const returning = await relay.connect({}, `?cursor=${before}`)
  await returning.count(PAGE)
  await settle(returning)
  t.notOk(returning.messages.find(endOfReplay), "its replay goes on")
  t.match(fresh.messages[0], { recovered: false, reason: "no_cursor" })
  t.match(refused.messages[0], { recovered: false, reason: "malformed" })
  t.match(returning.messages[0], { recovered: true, cursor: before })
  release()
  await insert(db, 1)
  for (const client of [live, fresh, refused, returning])
    await client.first("the last", ({ data }) => data?.votes === 1)
  for (const client of [fresh, refused]) {
    t.ok(holds(client.messages[0] as Received, xid), "its cursor holds the batch")
    t.equal(client.changes().length, 1)
  }
  for (const client of [live, returning]) {
    t.equal(client.changes().length, ROWS + 1)
    t.equal(claimed(client, xid), ROWS)
  }
  t.match(returning.messages.find(endOfReplay), { replayed: ROWS })
})

/** Connects with a cursor and does not wait for the answer. */
const returnTo = (relay: TestRelay, cursor: string) =>
  relay.open(`/ws?cursor=${cursor}`, { headers: { authorization: `Bearer ${token()}` } })

t.test("a cursor that the feed has not reached is waited for", async (t) => {
  const db = await database(t)
  const { relay, hold, release } = await startHeldRelay(t, db)
  hold()
  await insert(db, 1)
  const cursor = await cursorNow(db)
  await insert(db, 2)
  const client = await returnTo(relay, cursor)
  await settle(client)
  t.notOk(
    client.messages.find(({ type }) => type === "connection_success"),
    "not answered yet",
  )
  release()
  await client.first("the end of the replay", endOfReplay)
  t.match(
    client.messages.find(({ type }) => type === "connection_success"),
    { recovered: true, cursor },
  )
  await insert(db, 3)
  await client.first("the last", ({ data }) => data?.votes === 3)
  t.same(votes(client), [2, 3])
})

t.test("who has read further than the feed is live when the feed is there", async (t) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  const cursor = await cursorNow(db)
  await insert(db, 1)
  const { relay, hold, release } = await startHeldRelay(t, db)
  hold()
  await insert(db, 2)
  const client = await relay.connect({}, `?cursor=${cursor}`)
  await client.count(2)
  await settle(client)
  t.notOk(client.messages.find(endOfReplay), "its replay goes on")
  release()
  t.match(await client.first("the end of the replay", endOfReplay), { replayed: 2 })
  await insert(db, 3)
  await client.first("the last", ({ data }) => data?.votes === 3)
  t.same(votes(client), [1, 2, 3])
})

t.test("a feed that is away is no reason to call a cursor ahead: it is for another attempt", async (t) => {
  const db = await database(t)
  const { relay, cut, refuse } = await startHeldRelay(t, db)
  refuse()
  cut()
  await insert(db, 1)
  const client = await returnTo(relay, await cursorNow(db))
  const over = () => client.messages.length > 0 || client.socket.readyState === client.socket.CLOSED
  await until("it is answered or closed", over)
  t.same(client.messages, [])
  t.match(await client.closed, { code: 4011 })
})

t.test("a feed that is lost in the middle of a batch: nobody is told that all was sent", async (t) => {
  const db = await database(t)
  const { relay, holdBatch, cut, refuse, heal } = await startHeldRelay(t, db)
  const live = await relay.connect()
  // Not from SQL: that may be ahead of the feed, which is about to be lost.
  const before = live.messages[0]?.cursor
  const watching = await relay.connect()
  const xid = await holdBatch()
  await live.count(PAGE)
  const fresh = await relay.connect()
  const returning = await relay.connect({}, `?cursor=${before}`)
  await returning.count(PAGE)
  live.send({ type: "subscribe", channels: ["hall:1"], request: "join" })
  await settle(live)
  refuse()
  cut()
  const joined = await live.first("the answer", ({ request }) => request === "join")
  t.equal(relay.relay.status().feed.kind, "down", "answered while the feed is down")
  t.notOk(holds(joined, xid))
  t.notOk(holds(await watching.first("a checkpoint", ({ type }) => type === "checkpoint"), xid))
  t.match(await returning.closed, { code: 4011 }, "the rest cannot be read")
  const later = await relay.connect({}, `?cursor=${before}`)
  t.match(await later.first("the end of the replay", endOfReplay), { replayed: 0 })
  heal()
  await insert(db, 1)
  const kept = returning.messages.findLast(({ cursor }) => cursor !== undefined)?.cursor
  const again = await relay.connect({}, `?cursor=${kept}`)
  for (const client of [live, watching, later, again, fresh])
    await client.first("the last", ({ data }) => data?.votes === 1)
  for (const client of [live, watching, later, again]) {
    t.equal(idsOf(client.messages, xid).size, ROWS)
    await client.first("a cursor that holds it", (message) => holds(message, xid))
    t.equal(claimed(client, xid), ROWS)
  }
})

t.test("a replay goes on when the feed is lost in the middle of a batch and back at once", async (t) => {
  const db = await database(t)
  const { relay, holdBatch, cut } = await startHeldRelay(t, db)
  const before = await cursorNow(db)
  const live = await relay.connect()
  const xid = await holdBatch()
  await live.count(PAGE)
  const returning = await relay.connect({}, `?cursor=${before}`)
  await returning.count(PAGE)
  cut()
  await insert(db, 1)
  for (const client of [live, returning]) {
    await client.first("the last", ({ data }) => data?.votes === 1)
    await client.first("a cursor that holds it", (message) => holds(message, xid))
    t.equal(claimed(client, xid), ROWS)
  }
  await until("nobody is in a replay", () => relay.relay.status().hub.replaying === 0)
  await insert(db, 2)
  for (const client of [live, returning]) await client.first("the next", ({ data }) => data?.votes === 2)
})
