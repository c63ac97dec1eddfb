/** Transactions that stay open long after the lease, and hold xmin: a neighbour database's, and one forgotten prepared. */

import t, { type Test } from "tap"
import { createBell } from "../../relay/feed/bell.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { type Database, database } from "../helpers/database.ts"
import { comesTo, pollsOn, wake } from "../helpers/lease.ts"
import { NO_FLOOR, startRelay } from "../helpers/relay.ts"
import { openSession } from "../helpers/session.ts"

/** A prepared transaction that holds its xid and has nothing to tell; rolled back with the test. */
async function forget(t: Test, db: Database): Promise<void> {
  const session = await db.session(db.superuserUrl)
  const name = `forgotten_${db.name}`
  t.teardown(() => session.query(`rollback prepared '${name}'`).then(() => session.end()))
  await session.query(`begin; select pg_current_xact_id(); prepare transaction '${name}'`)
}

t.test(
  "a neighbour database's long transaction: the relay polls on, new commits ring, and it goes quiet with it",
  async (t) => {
    const db = await database(t)
    const neighbour = await (await database(t, { empty: true })).session()
    const relay = await startRelay(t, db, {}, NO_FLOOR)
    const client = await relay.connect()
    await neighbour.query("begin; create table busy (id int)")
    await wake(relay, db, 1_000)
    await comesTo(relay, "tail")
    const { heard } = relay.relay.status().bell
    for (let n = 1; n <= 3; n++) {
      await db.query("insert into vote (votes) values (1)")
      await client.count(n)
    }
    await pollsOn(relay, 5)
    t.match(relay.relay.status().bell, { mode: "tail", heard: heard + 3 })
    await neighbour.query("commit")
    await comesTo(relay, "quiet")
  },
)

t.test("a forgotten prepared transaction: the polls get slower, and end after a minute", async (t) => {
  const db = await database(t)
  const { session } = await openSession(t, db)
  await forget(t, db)
  let now = 0
  const bell = createBell({ setting: "adaptive", metrics: createMetrics(), now: () => now })
  let since = await session.now()
  async function read() {
    const { head, changes } = await session.read(since, 100)
    since = head.snapshot
    const transactions = new Set(changes.map(({ xid }) => xid))
    await bell.afterRead(session, { snapshot: head.snapshot, leaseMs: head.leaseMs, transactions })
    return { mode: bell.report().mode, pollMs: bell.pollMs(true) }
  }
  bell.recheck()
  const steps: Array<[seconds: number, mode: string, pollMs: number]> = [
    [0, "tail", 20],
    [1, "tail", 20],
    [6, "tail", 50],
    [59, "tail", 50],
    [61, "quiet", 1_000],
    [62, "quiet", 1_000],
  ]
  for (const [seconds, mode, pollMs] of steps) {
    now = seconds * 1_000
    t.same(await read(), { mode, pollMs }, `after ${seconds} s`)
  }
  bell.recheck()
  t.match(await read(), { mode: "tail", pollMs: 20 }, "the next lease has a tail of its own")
})

t.test("it polls by who is there to see, and by how much is written", async (t) => {
  const db = await database(t)
  const { session } = await openSession(t, db)
  let now = 0
  const bell = createBell({ setting: "adaptive", metrics: createMetrics(), now: () => now })
  const snapshot = await session.now()
  const steps: Array<[commits: number, hasClients: number, unattended: number]> = [
    [0, 5, 50],
    [300, 5, 50],
    [500, 10, 50],
    [0, 10, 50],
    [0, 5, 50],
  ]
  for (const [commits, hasClients, unattended] of steps) {
    now += 200
    const transactions = new Set(Array.from({ length: commits }, (_, n) => `${now} ${n}`))
    await bell.afterRead(session, { snapshot, leaseMs: 1_000, transactions })
    t.same([bell.pollMs(true), bell.pollMs(false)], [hasClients, unattended], `${commits} in 200 ms`)
  }
})
