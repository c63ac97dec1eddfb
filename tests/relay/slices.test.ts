/** While a huge batch is on its way everybody else is answered. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { startRelay } from "../helpers/relay.ts"

const ROWS = 20_000

t.test("in the middle of a huge batch pings, health and new clients are answered", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  const bulk = db.query("insert into vote (votes) select generate_series(1, $1::int)", [ROWS])
  await client.count(1)
  client.send({ type: "ping", request: "in the middle" })
  const [health, newcomer] = await Promise.all([fetch(`${relay.url}/health/live`), relay.connect()])
  t.ok(health.ok)
  t.ok(client.changes().length < ROWS, "the batch was still on its way")
  await client.count(ROWS)
  const answered = client.messages.findIndex(({ request }) => request === "in the middle")
  t.ok(answered > 0 && answered < client.messages.findIndex(({ data }) => data?.votes === ROWS))
  t.same(
    client.changes().map(({ data }) => data?.votes),
    Array.from({ length: ROWS }, (_, n) => n + 1),
  )
  t.equal(newcomer.changes().length, 0, "whose cursor covers the batch in which it came")
  await bulk
})
