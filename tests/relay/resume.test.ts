/** Who returns with a cursor gets what it missed, once, in order, and nothing else; or is told why not. */

import t, { type Test } from "tap"
import { contains, parseCursor, type Snapshot } from "../../relay/change/cursor.ts"
import type { Client, Received } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow } from "../helpers/log.ts"
import { metricOf, startRelay, type TestRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const insert = (db: Pick<Database, "query">, votes: number, committee = 7) =>
  db.query("insert into vote (election_id, committee_id, votes) values (1, $2, $1)", [votes, committee])

const votes = (changes: Received[]) => changes.map(({ data }) => data?.votes)

/** Waits for the checkpoint that ends a replay. */
const replayed = (client: Client) =>
  client.first(
    "the end of the replay",
    (message) => message.type === "checkpoint" && message.replayed !== undefined,
  )

const resume = (relay: TestRelay, cursor: string, query = "", claims = {}) =>
  relay.connect(claims, `?cursor=${cursor}${query}`)

/** What is missed is more than is sent at one go, in several reads of the log. */
const [BATCHES, BATCH] = [16, 100]

interface Away {
  relay: TestRelay
  /** The position before what was missed. */
  cursor: string
}

t.test("whoever is cut off in the middle of a long replay need not begin it again", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const cursor = await cursorNow(db)
  const witness = await relay.connect()
  for (let batch = 1; batch <= BATCHES; batch++) {
    await db.query(`insert into vote (votes) select ${batch} from generate_series(1, ${BATCH})`)
    await witness.count(batch * BATCH)
  }
  const all = votes(witness.changes())
  const client = await resume(relay, cursor)
  const first = await client.first("a checkpoint", ({ type }) => type === "checkpoint")
  t.notOk("replayed" in first, "it is within the replay")
  const place = client.messages.indexOf(first)
  const had = client.messages.slice(0, place).filter((message) => "tx" in message)
  client.socket.terminate()
  t.ok(had.length > 0 && had.length < all.length, `${had.length} of ${all.length}`)
  const back = await resume(relay, first.cursor as string)
  await replayed(back)
  t.same([...votes(had), ...votes(back.changes())], all)
})

/** The same promises, whether the relay remembers what was missed or has to read it. */
for (const source of ["memory", "log"]) {
  const away = async (t: Test, db: Database, missed: () => Promise<unknown>): Promise<Away> => {
    if (source === "log") {
      await db.query("select relay.meet_lineage()")
      const cursor = await cursorNow(db)
      await missed()
      return { relay: await startRelay(t, db), cursor }
    }
    const relay = await startRelay(t, db)
    const cursor = await cursorNow(db)
    await missed()
    const end = parseCursor(await cursorNow(db))?.snapshot as Snapshot
    await until("the relay has it", () => {
      const { feed } = relay.relay.status()
      return feed.kind === "up" && contains(feed.cursor.snapshot, end)
    })
    return { relay, cursor }
  }

  t.test(`from the ${source}`, async (t) => {
    t.test("what was missed comes in order, then the end of the replay, then what is new", async (t) => {
      const db = await database(t)
      const { relay, cursor } = await away(t, db, async () => {
        await insert(db, 1)
        await db.query("update vote set votes = 2")
        await db.query(
          "delete from vote; insert into vote (votes) values (3); select relay.broadcast('election_updates', '4')",
        )
      })
      const client = await resume(relay, cursor)
      t.match(client.messages[0], { type: "connection_success", recovered: true, cursor, reason: null })
      await replayed(client)
      await insert(db, 5)
      await client.count(6)
      t.same(
        client.messages
          .filter((message) => message.type !== "checkpoint" || message.replayed !== undefined)
          .map(({ type, action }) => action ?? type),
        ["connection_success", "create", "update", "delete", "create", "message", "checkpoint", "create"],
      )
      t.match(await replayed(client), { replayed: 5 })
      t.equal(new Set(client.changes().map(({ id }) => id)).size, 6)
      t.ok((await metricOf(relay, "relay_resume_total", `result="${source}"`)) === 1)
      t.equal(await metricOf(relay, "relay_replayed_total", `source="${source}"`), 5)
    })

    t.test("a transaction that was in flight in the cursor comes, one that it holds does not", async (t) => {
      const db = await database(t)
      const [early, late] = [await db.session(), await db.session()]
      await early.query("begin; insert into vote (votes) values (1)")
      await late.query("begin; insert into vote (votes) values (2)")
      await insert(db, 3)
      await late.query("commit")
      const { relay, cursor } = await away(t, db, async () => {
        await early.query("commit")
        await insert(db, 4)
      })
      const client = await resume(relay, cursor)
      await replayed(client)
      t.same(votes(client.changes()), [1, 4])
    })

    t.test("only what the channels and the token of today allow", async (t) => {
      const db = await database(t)
      const { relay, cursor } = await away(t, db, async () => {
        await insert(db, 1, 7)
        await insert(db, 2, 8)
        await insert(db, 3, 9)
        await db.query(
          "update vote set committee_id = 9 where votes = 1; update vote set committee_id = 7 where votes = 2",
        )
        await db.query("select relay.send_to_user('7', '\"mine\"'), relay.send_to_user('8', '\"other\"')")
      })
      const narrowed = await resume(relay, cursor, "", { committees: ["7"] })
      const joined = await resume(relay, cursor, "&channels=committee:7,committee:8", {
        committees: ["7", "8"],
      })
      const other = await resume(relay, cursor, "&channels=committee:9", { sub: "8" })
      for (const client of [narrowed, joined, other]) await replayed(client)
      const seen = (client: Client) =>
        client.changes().map(({ action, data, payload }) => [action ?? payload, data?.votes])
      t.same(seen(narrowed), [
        ["create", 1],
        ["leave", undefined],
        ["create", 2],
        ["mine", undefined],
      ])
      t.same(seen(joined), [
        ["create", 1],
        ["create", 2],
        ["leave", undefined],
        ["update", 2],
        ["mine", undefined],
      ])
      t.same(seen(other), [
        ["create", 3],
        ["create", 1],
        ["other", undefined],
      ])
    })

    t.test("subscribe with a cursor sets the position of the whole connection", async (t) => {
      const db = await database(t)
      const { relay, cursor } = await away(t, db, async () => {
        await insert(db, 1, 7)
        await insert(db, 2, 8)
      })
      const client = await relay.connect({}, "?channels=committee:7")
      client.send({ type: "subscribe", channels: ["committee:8"], cursor, request: "a" })
      client.send({ type: "subscribe", channels: ["committee:9"], request: "b" })
      const [first, second] = [
        await client.first("the first answer", ({ request }) => request === "a"),
        await client.first("the second answer", ({ request }) => request === "b"),
      ]
      t.match(first, { type: "subscribed", channels: ["committee:8"], recovered: true, cursor })
      t.match(second, {
        type: "subscribed",
        channels: ["committee:9"],
        recovered: false,
        reason: "no_cursor",
      })
      t.ok(client.messages.indexOf(await replayed(client)) < client.messages.indexOf(second))
      await insert(db, 3, 9)
      t.same(votes(await client.count(3)), [1, 2, 3])
    })

    t.test("the join under full write load has no gap and no repetition", async (t) => {
      const db = await database(t)
      let writing = true
      let written = 0
      const { relay, cursor } = await away(t, db, async () => {
        for (let i = 0; i < 200; i++) await insert(db, ++written)
      })
      const writers = Array.from({ length: 4 }, async (_, i) => {
        const session = await db.session()
        while (writing) {
          const n = ++written
          await session.query("begin; savepoint a")
          await session.query("insert into vote (votes, committee_id) values ($1, $2)", [n, i + 1])
          await session.query("release a; commit")
        }
      })
      const clients: Client[] = []
      for (let i = 0; i < 20; i++) {
        const last = clients.at(-1)
        const from =
          i % 2 === 0 ? cursor : last?.messages.findLast((message) => message.cursor !== undefined)?.cursor
        clients.push(await resume(relay, from ?? cursor))
        t.match(clients.at(-1)?.messages[0], { recovered: true })
      }
      writing = false
      await Promise.all(writers)
      const all = (await db.query<{ votes: number }>("select votes from vote order by votes")).map(
        (row) => row.votes,
      )
      for (const [i, client] of clients.entries()) {
        await client.first("the last change", ({ data }) => data?.votes === all.at(-1))
        if (i % 2 === 1) continue
        await until("all", () => client.changes().length >= all.length)
        t.same(
          votes(client.changes()).sort((a, b) => Number(a) - Number(b)),
          all,
        )
      }
    })
  })
}
