/** Notifications know no rights: whoever can connect to the database rings what it likes. The relay gives its clients what they are owed. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { role } from "../helpers/log.ts"
import { metricOf, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const ROUNDS = 10
const EACH = 500

t.test("a flood of forged bells, leases and garbage keeps no change from anybody", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  const stranger = await db.session(await role(t, db, "stranger"))
  let flooding = true
  const flood = (async () => {
    for (let round = 0; round < ROUNDS; round++)
      await stranger.query(`
        select pg_notify('election_updates', payload) from generate_series(1, ${EACH}) n, lateral (values
          ('{"v":1,"table":"public.vote","op":"insert","rows":1000000,"xid":"' || ${round} * 100000 + n || '"}'),
          ('{"v":1,"lease":' || n || '}'), (repeat('x', 3000) || n)) forged(payload)`)
    flooding = false
  })()
  let written = 0
  while (flooding || written < 20) await db.query("insert into vote (votes) values ($1)", [written++])
  await flood
  await client.count(written)
  t.same(
    client.changes().map(({ data }) => data?.votes),
    Array.from({ length: written }, (_, n) => n),
  )
  await until(
    "it has heard all",
    async () => (await metricOf(relay, "relay_bells_total", 'kind="garbage"')) >= ROUNDS * EACH,
  )
  t.ok(relay.relay.status().ready)
  t.ok((await metricOf(relay, "relay_bells_total", 'kind="lease"')) >= ROUNDS * EACH)
  await db.query("insert into vote (votes) values (0)")
  await client.count(written + 1)
})
