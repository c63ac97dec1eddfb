/** Leases of other relays, alive and killed. These relays have no floor: what nobody covers never comes. */

import t, { type Test } from "tap"
import type { Client } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import {
  comesTo,
  leaseInForce,
  leaseStands,
  openSkipper,
  placeLease,
  pollsOn,
  startBurst,
} from "../helpers/lease.ts"
import { processOn } from "../helpers/process.ts"
import { metricOf, NO_FLOOR, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** Honours leases, and takes none: one that it shows is another's. */
const TAKES_NONE = { BELL: "always" }

const isWhole = (t: Test, client: Client, changes: number) => {
  const ids = client.changes().map(({ id }) => id)
  t.equal(ids.length, changes)
  t.equal(new Set(ids).size, changes)
}
t.test(
  "two relays: one takes the lease, the other is told once, and both cover those who left out the bell",
  async (t) => {
    const db = await database(t)
    const busy = await startRelay(t, db, {}, NO_FLOOR)
    const other = await startRelay(t, db, TAKES_NONE, NO_FLOOR)
    const clients = [await busy.connect(), await other.connect()] as const
    for (const relay of [busy, other]) await comesTo(relay, "quiet")
    const burst = await startBurst(db)
    for (const relay of [busy, other]) await comesTo(relay, "awake")
    // A read may show the lease before the news of it comes.
    await until("told", async () => (await metricOf(other, "relay_bells_total", 'kind="lease"')) >= 1)
    const skipper = await openSkipper(db, 7)
    await burst.stop()
    for (const relay of [busy, other]) await comesTo(relay, "tail")
    for (const relay of [busy, other]) await pollsOn(relay, 5)
    await skipper.query("commit")
    for (const client of clients) {
      await client.count(burst.committed() + 1)
      isWhole(t, client, burst.committed() + 1)
    }
    for (const relay of [busy, other]) await comesTo(relay, "quiet")
    await db.query("insert into vote (votes) values (8)")
    for (const client of clients) await client.count(burst.committed() + 2)
  },
)

t.test(
  "a relay killed with -9 in its lease: another that is there brings what was written without a bell",
  async (t) => {
    const db = await database(t)
    const survivor = await startRelay(t, db, TAKES_NONE, NO_FLOOR)
    const client = await survivor.connect()
    const killed = await (await processOn(t, db.url)).start()
    await comesTo(survivor, "quiet")
    const burst = await startBurst(db)
    await comesTo(survivor, "awake")
    const skipper = await openSkipper(db, 7)
    killed.child.kill("SIGKILL")
    await killed.ended
    const from = burst.committed()
    await until("they write on", () => burst.committed() > from + 50)
    await until("its lease is over", async () => !(await leaseInForce(db)))
    await burst.stop()
    await comesTo(survivor, "tail")
    await pollsOn(survivor, 5)
    await skipper.query("commit")
    await client.count(burst.committed() + 1)
    isWhole(t, client, burst.committed() + 1)
    await comesTo(survivor, "quiet")
  },
)

t.test(
  "a lease that is over and that no relay was told of: the floor finds it, and takes it away",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, TAKES_NONE)
    const client = await relay.connect()
    await comesTo(relay, "quiet")
    const skipper = await openSkipper(db, 7, () => placeLease(db, -3_600_000))
    await until("it is taken away", async () => !(await leaseStands(db)))
    await comesTo(relay, "tail")
    await skipper.query("commit")
    await client.count(1)
    await comesTo(relay, "quiet")
    await db.query("insert into vote (votes) values (8)")
    await client.count(2)
    isWhole(t, client, 2)
  },
)

t.test(
  "the only relay killed with -9 in its lease: the next one brings even who was open all the time",
  async (t) => {
    const db = await database(t)
    const killed = await (await processOn(t, db.url)).start()
    const burst = await startBurst(db)
    await until("it has taken a lease", () => leaseInForce(db))
    const skipper = await openSkipper(db, 7)
    killed.child.kill("SIGKILL")
    await killed.ended
    await burst.stop()
    await until("its lease is over", async () => !(await leaseInForce(db)))
    const [{ cursor } = { cursor: "" }] = await db.query<{ cursor: string }>(
      "select relay.cursor() as cursor",
    )
    const late = await db.session()
    await late.query("insert into vote (votes) values (8)")
    const next = await startRelay(t, db, {}, NO_FLOOR)
    const client = await next.connect({}, `?cursor=${cursor}`)
    await pollsOn(next, 3)
    await skipper.query("commit")
    await client.count(2)
    t.same(
      client
        .changes()
        .map(({ data }) => data?.votes)
        .sort(),
      [7, 8],
    )
    await comesTo(next, "quiet")
  },
)
