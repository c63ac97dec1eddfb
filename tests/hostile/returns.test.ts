/** One user who returns again and again, from as far back as the log reaches, or from positions that were never true. */

import t from "tap"
import type { Client } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { cursorNow } from "../helpers/log.ts"
import { metricOf, NO_LIMITS, startPatientRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const CONNECTIONS = 40
const TRANSACTIONS = 60
const ROWS = 400
/** What fits into no memory, so that everybody who returns is read for. */
const NO_MEMORY = "0.0001"

const ended = (client: Client) =>
  client.first(
    "the end of the replay",
    ({ type, replayed }) => type === "checkpoint" && replayed !== undefined,
  )

t.test("forty cursors of one user, made up and old, hold up nobody else's return", async (t) => {
  const db = await database(t)
  await db.query("select relay.meet_lineage()")
  const old: string[] = []
  for (let n = 0; n < TRANSACTIONS; n++) {
    if (n < CONNECTIONS / 2) old.push(await cursorNow(db))
    await db.query("insert into guarantee (committee_id, note) select 1, 'old' from generate_series(1, $1)", [
      ROWS,
    ])
  }
  const near = await cursorNow(db)
  await db.query("insert into vote (votes) select generate_series(1, 10)")
  const relay = await startPatientRelay(t, db, { ...NO_LIMITS, REPLAY_BUFFER_MB: NO_MEMORY })
  // The position of the oldest, with an xmin that says something else each time.
  const [lineage, , xmax] = (old[0] as string).split(":") as [string, string, string]
  const madeUp = old.map((_, n) => `${lineage}:${BigInt(xmax) - BigInt(n)}:${xmax}:`)
  const headers = { authorization: `Bearer ${token({ sub: "8" })}` }
  const filter = encodeURIComponent(JSON.stringify({ note: "none has this" }))
  const many = await Promise.all(
    [...old, ...madeUp].map((cursor) => relay.open(`/ws?cursor=${cursor}&where=${filter}`, { headers })),
  )
  const one = await relay.connect({ sub: "9" }, `?cursor=${near}`)
  t.match(await ended(one), { replayed: 10 })
  t.equal(one.changes().length, 10)
  const under = relay.relay.status().hub.replaying
  t.ok(under > CONNECTIONS / 4, `${under} of ${CONNECTIONS} others are on their way still`)
  let refused = 0
  for (const client of many) {
    const outcome = await Promise.race([ended(client).then(() => "recovered"), client.closed])
    if (outcome === "recovered") continue
    t.match(outcome, { code: 4011, reason: /^too many replays/ })
    refused++
  }
  t.equal(await metricOf(relay, "relay_resume_total", 'result="refused"'), refused)
  t.equal(await metricOf(relay, "relay_resume_total", 'result="log"'), CONNECTIONS - refused + 1)
  const again = await relay.open(`/ws?cursor=${old[0]}`, { headers })
  await ended(again)
  t.equal(again.messages[0]?.recovered, true, "who was refused comes back with the same cursor")
  await until("nobody is on the way", () => relay.relay.status().hub.replaying === 0)
})
