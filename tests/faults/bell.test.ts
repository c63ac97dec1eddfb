/** The adaptive bell: while the relay polls writers do not ring, and nothing is lost on the way in or out. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { comesTo, leaseInForce, openSkipper, startBurst } from "../helpers/lease.ts"
import { metricOf, NO_FLOOR, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.test(
  "many writers wake the relay, which polls and lets go again: few bells, nothing lost, not even who skipped the bell and committed late",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const client = await relay.connect()
    const burst = await startBurst(db)
    await until("the relay polls", () => relay.relay.status().bell.mode === "awake")
    // Still open when the lease is over.
    const slow = await openSkipper(db, 77)
    await until("many commits", () => burst.committed() > 1_500)
    await burst.stop()
    await until("the lease is over", () => relay.relay.status().bell.mode === "tail")
    await slow.query("commit")
    const written = burst.committed() + 1
    const changes = await client.count(written)
    t.equal(new Set(changes.map(({ id }) => id)).size, written)
    t.equal(changes.length, written)
    await until("quiet again", () => relay.relay.status().bell.mode === "quiet")
    const { heard, polls } = relay.relay.status().bell
    // How few depends on how fast they write: below 500 a second each may ring.
    t.ok(heard < written, `${heard} bells for ${written} commits`)
    t.equal(await metricOf(relay, "relay_bells_total", 'kind="bell"'), heard)
    t.equal(await metricOf(relay, "relay_reads_total", 'why="poll"'), polls)
    await until("each commit rang, or counts as one that did not", () => {
      const { heard, skipped } = relay.relay.status().bell
      return heard + skipped === written
    })
    t.equal(await metricOf(relay, "relay_bell_mode", 'mode="quiet"'), 1)
    t.equal(await metricOf(relay, "relay_bell_mode", 'mode="awake"'), 0)
    t.equal(await metricOf(relay, "relay_bell_mode", 'mode="tail"'), 0)
  },
)

t.test(
  "BELL=always under load: every commit rings, no lease is taken, and the bells alone bring all",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, { BELL: "always" }, NO_FLOOR)
    const client = await relay.connect()
    // With the second the relay has done what follows a read since it listens: it looks for leases from before.
    for (const n of [1, 2]) {
      await db.query("insert into vote (votes) values (0)")
      await client.count(n)
    }
    await comesTo(relay, "quiet")
    const before = relay.relay.status().bell
    const burst = await startBurst(db)
    await until("many commits", () => burst.committed() > 1_500)
    await burst.stop()
    const committed = 2 + burst.committed()
    await client.count(committed)
    t.match(relay.relay.status().bell, {
      mode: "quiet",
      heard: committed,
      skipped: 0,
      polls: before.polls,
    })
    t.same(await db.query("select pg_sequence_last_value('relay.lease') as lease"), [{ lease: null }])
    t.equal(client.changes().length, committed)
  },
)

t.test("BELL=off under load: no commit rings, and the polls alone bring all", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { BELL: "off" }, NO_FLOOR)
  const client = await relay.connect()
  await until("a lease from the start", () => leaseInForce(db))
  const burst = await startBurst(db)
  await until("many commits", () => burst.committed() > 1_500)
  t.ok(await leaseInForce(db))
  await burst.stop()
  await client.count(burst.committed())
  await until("all are counted", () => {
    const { heard, skipped } = relay.relay.status().bell
    return heard + skipped === burst.committed()
  })
  const { mode, heard } = relay.relay.status().bell
  t.equal(mode, "awake")
  // One rings where a machine stands still for longer than the rest of a lease.
  t.ok(heard < burst.committed() / 10, `${heard} of ${burst.committed()} rang`)
  t.equal(client.changes().length, burst.committed())
})

t.test(
  "sessions with relay.bell = 'off' count as such beside a relay that always wants the bell",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, { BELL: "always" })
    const client = await relay.connect()
    await db.query("set relay.bell = 'off'; insert into vote (votes) values (1)")
    await client.count(1)
    const ringing = await db.session()
    await ringing.query("insert into vote (votes) values (2); insert into guarantee default values")
    await client.count(3)
    await until("the first is counted", () => relay.relay.status().bell.skipped === 1)
    t.match(relay.relay.status().bell, { heard: 2, skipped: 1 })
  },
)
