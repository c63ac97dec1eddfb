/** Readers that do not keep up, and bursts that must not cut off anybody who reads. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { startRelay, type TestRelay } from "../helpers/relay.ts"

/** More than the kernel and the relay hold for a socket that is not read. */
const STUFFING_ROWS = 2_500

const stuff = (db: Database, rows = STUFFING_ROWS) =>
  db.query(
    `insert into guarantee (committee_id, note) select 1, repeat('x', 8000) from generate_series(1, ${rows})`,
  )

async function metric(relay: TestRelay, line: string): Promise<number> {
  const text = await relay.relay.metrics.registry.metrics()
  const found = text.split("\n").find((one) => one.startsWith(`${line} `))
  return Number(found?.slice(line.length + 1) ?? 0)
}

t.test("a client that joins a channel while much waits for it still gets all of it, in order", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { LANE_BUFFER_MB: "64" })
  const slow = await relay.connect({}, "?channels=committee:1")
  const quick = await relay.connect({}, "?channels=committee:1")
  slow.socket.pause()
  await stuff(db)
  await quick.count(STUFFING_ROWS)
  slow.send({ type: "subscribe", channels: ["committee:2"], request: "late" })
  // Its answer comes when the relay has taken both frames.
  quick.send({ type: "ping" })
  await quick.first("pong", ({ type }) => type === "pong")
  await db.query("insert into guarantee (committee_id) values (2)")
  slow.socket.resume()
  const changes = await slow.count(STUFFING_ROWS + 1)
  const ids = changes.map(({ id }) => Number(id))
  t.same(
    ids,
    [...ids].sort((a, b) => a - b),
  )
  t.match(changes.at(-1), { data: { committee_id: 2 } })
  const answered = slow.messages.findIndex(({ type }) => type === "subscribed")
  t.equal(slow.messages.slice(0, answered).filter(({ action }) => action === "create").length, STUFFING_ROWS)
})
