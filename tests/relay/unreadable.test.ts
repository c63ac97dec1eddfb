/** A row of the log that nobody can read: clients load its table again, and operations are told. */

import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { keptCursor } from "../helpers/returning.ts"
import { until } from "../helpers/wait.ts"

interface Report {
  status: string
  problems: string[]
  feed: { state: string; unreadable: { rows: number; last_seq: string | null } }
}

async function report({ url }: TestRelay): Promise<Report> {
  const answer = await fetch(`${url}/api/utils/websocket/health/`, {
    headers: { authorization: `Bearer ${token({ role: "admin" })}` },
  })
  return (await answer.json()) as Report
}

/** A database whose log gets such a row between two others. */
async function spoiled(t: Test) {
  const db = await database(t)
  const spoil = async () => {
    await db.query("insert into vote (votes) values (1)")
    await db.query(
      `insert into relay.change_0 (what, data)
       select id, '[{"id":"a secret}' from relay.what where "table" = 'public.vote' and op = 'insert' and not oversize`,
    )
    await db.query("insert into vote (votes) values (2)")
  }
  return { db, spoil }
}

t.test("clients that are there are told to load, the others come as ever, and health says so", async (t) => {
  const { db, spoil } = await spoiled(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  t.match(await report(relay), { status: "ok", feed: { unreadable: { rows: 0, last_seq: null } } })
  await spoil()
  const changes = await client.count(3)
  t.match(changes, [
    { action: "create", data: { votes: 1 } },
    { action: "bulk_load", table: "public.vote" },
    { action: "create", data: { votes: 2 } },
  ])
  const found = await report(relay)
  t.match(found, { status: "degraded", feed: { state: "up", unreadable: { rows: 1, last_seq: /^\d+$/ } } })
  t.match(found.problems, [/1 since the start, the last one with seq \d+/])
  t.notMatch(JSON.stringify(found), /secret/)
  t.equal((await fetch(`${relay.url}/health/ready`)).status, 200)
  t.equal(await metricOf(relay, "relay_unreadable_rows_total", 'fault="malformed"'), 1)
  t.equal(await metricOf(relay, "relay_feed_reconnects_total"), 0)
})

t.test("a client that returns over it is told the same, from memory and from the log", async (t) => {
  const { db, spoil } = await spoiled(t)
  const first = await startRelay(t, db)
  const client = await first.connect()
  await db.query("insert into vote (votes) values (0)")
  await client.count(1)
  const cursor = await keptCursor(client)
  client.socket.terminate()
  await spoil()
  await until("the relay has read it", async () => (await report(first)).feed.unreadable.rows === 1)
  for (const [from, relay] of [
    ["memory", first],
    ["log", await startRelay(t, db)],
  ] as const) {
    const again = await relay.connect({}, `?cursor=${cursor}`)
    t.match(await again.first("the answer", ({ type }) => type === "connection_success"), { recovered: true })
    t.match(
      (await again.count(3)).map(({ action }) => action),
      ["create", "bulk_load", "create"],
      from,
    )
    t.equal((await report(relay)).feed.unreadable.rows, 1, from)
  }
})
