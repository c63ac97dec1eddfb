/** How resuming fails elsewhere, by the number of the report, and does not here. */

import t from "tap"
import type { Client } from "../helpers/client.ts"
import { execSql, ownCluster } from "../helpers/cluster.ts"
import { type Database, database } from "../helpers/database.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"

const lastCursor = (client: Client): string =>
  client.messages.findLast(({ cursor }) => cursor !== undefined)?.cursor ?? ""

const comeBack = (relay: TestRelay, cursor: string, channel = "election_updates", claims = {}) =>
  relay.connect(claims, `?channels=${channel}&cursor=${cursor}`)

const votes = (client: Client) => client.changes().map(({ data }) => data?.votes)

const insert = (db: Database, votes: number, committee = 1) =>
  db.query("insert into vote (votes, committee_id) values ($1, $2)", [votes, committee])

t.test("a client that was never sent anything resumes (socket.io 4888, 5538)", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const first = await relay.connect()
  const cursor = lastCursor(first)
  first.socket.terminate()
  await insert(db, 1)
  const second = await comeBack(relay, cursor)
  t.match(second.messages[0], { recovered: true })
  t.same((await second.count(1)).length, 1)
})

t.test(
  "a client that saw nothing for long resumes when all of that time is rotated out (socket.io 5282)",
  async (t) => {
    // A server of its own: a neighbour's transaction may bring a rotation to cut off more than it must.
    const { url } = await ownCluster(t)
    const add = (votes: number, committee: number) =>
      execSql(url, `insert into vote (votes, committee_id) values (${votes}, ${committee})`)
    const relay = await startRelay(t, { url }, { HEARTBEAT_SECONDS: "1", REPLAY_BUFFER_MB: "0.001" })
    const watcher = await relay.connect()
    const quiet = await relay.connect({}, "?channels=committee:3")
    const began = lastCursor(quiet)
    for (let round = 0; round < 3; round++) {
      await add(round, 1)
      await watcher.count(round + 1)
      const [{ slot } = { slot: null }] = await execSql<{ slot: number | null }>(
        url,
        "select relay.rotate('0', 0) as slot",
      )
      await execSql(url, `select relay.advance_slot(${slot}::smallint)`)
    }
    const heard = quiet.messages.length
    await quiet.first(
      "a checkpoint after all of it",
      (message) => message.type === "checkpoint" && quiet.messages.indexOf(message) > heard,
    )
    const cursor = lastCursor(quiet)
    quiet.socket.terminate()
    t.same(votes(quiet), [])
    await add(9, 3)
    const back = await comeBack(relay, cursor, "committee:3")
    t.match(back.messages[0], { recovered: true })
    t.same(
      (await back.count(1)).map(({ data }) => data?.votes),
      [9],
    )
    t.match((await comeBack(relay, began, "committee:3")).messages[0], {
      recovered: false,
      reason: "too_old",
    })
  },
)

t.test(
  "one cursor serves again and again, also while its old connection is half open (socket.io 4880)",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const first = await relay.connect()
    const cursor = lastCursor(first)
    first.socket.pause()
    await insert(db, 1)
    for (let round = 0; round < 3; round++) {
      const again = await comeBack(relay, cursor)
      t.match(again.messages[0], { recovered: true })
      await again.count(1)
      await insert(db, 2 + round)
      t.same(votes(again).slice(0, 1), [1])
      await again.count(2 + round)
      t.equal(new Set(again.changes().map(({ id }) => id)).size, again.changes().length)
    }
  },
)

t.test(
  "whoever committed late and however many there were: all of it (supabase replays 25 by their start)",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const late = await db.session()
    await late.query("begin; insert into vote (votes) values (0)")
    const client = await relay.connect()
    for (let n = 1; n <= 60; n++) await insert(db, n)
    await client.count(60)
    const checkpoint = await client.first("a checkpoint", ({ type }) => type === "checkpoint")
    client.socket.terminate()
    await late.query("commit")
    await insert(db, 61)
    for (const where of [relay, await startRelay(t, db)]) {
      const back = await comeBack(where, checkpoint.cursor ?? "")
      t.match(back.messages[0], { recovered: true })
      await back.first("the late one", ({ data }) => data?.votes === 0)
      await back.first("the last", ({ data }) => data?.votes === 61)
      const all = new Set([...votes(client), ...votes(back)])
      t.equal(all.size, 62)
    }
  },
)

t.test(
  "resuming is no way around the token (socket.io's skipMiddlewares, mercure's reconnection)",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const first = await relay.connect()
    const cursor = lastCursor(first)
    first.socket.terminate()
    await insert(db, 1, 1)
    await insert(db, 2, 2)
    const narrowed = await comeBack(relay, cursor, "election_updates", { committees: [2] })
    t.same(
      (await narrowed.count(1)).map(({ data }) => data?.votes),
      [2],
    )
    const expired = await relay.open(`/ws?cursor=${cursor}`, {
      headers: { authorization: `Bearer ${token({ exp: Math.floor(Date.now() / 1_000) - 600 })}` },
    })
    t.match(await expired.closed, { code: 4005 })
    t.same(expired.changes(), [])
    const forbidden = await relay.open(`/ws?channels=committee:1&cursor=${cursor}`, {
      headers: { authorization: `Bearer ${token({ committees: [2] })}` },
    })
    t.match(await forbidden.closed, { code: 4507 })
    t.same(forbidden.changes(), [])
  },
)

t.test(
  "a TRUNCATE is told to who was away, and so is what was written after it (electric 4773)",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    await insert(db, 1)
    const first = await relay.connect()
    const cursor = lastCursor(first)
    first.socket.terminate()
    await db.query("truncate vote")
    await insert(db, 2)
    const back = await comeBack(relay, cursor)
    await back.first("the last", ({ data }) => data?.votes === 2)
    t.same(
      back
        .changes()
        .slice(-2)
        .map(({ action, data }) => [action, data?.votes]),
      [
        ["truncate", undefined],
        ["create", 2],
      ],
    )
  },
)

t.test("an unknown cursor is told so at once, and what comes next arrives (mercure 704, 1321)", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await comeBack(relay, "0123456789ab:5:5:")
  t.match(client.messages[0], { recovered: false, reason: "lineage" })
  await insert(db, 1)
  t.same(
    (await client.count(1)).map(({ data }) => data?.votes),
    [1],
  )
})
