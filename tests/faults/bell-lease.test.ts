/**
 * The end of a lease. These relays have no floor: a change that nobody rings for and no poll covers never comes, so
 * that its coming is the proof.
 */

import t from "tap"
import { database } from "../helpers/database.ts"
import { comesTo, openForgotten, openSkipper, pollsOn, wake } from "../helpers/lease.ts"
import { backendOf, waitsForLock } from "../helpers/log.ts"
import { newSeed, random } from "../helpers/random.ts"
import { NO_FLOOR, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const LEASES = 12
const WRITERS = 24
const LEASE_MS = 300

t.test(
  "writes and commits at every moment around the end of a lease, and transactions longer than it, all come once",
  async (t) => {
    const seed = newSeed()
    const { below } = random(seed)
    const db = await database(t)
    const relay = await startRelay(t, db, {}, NO_FLOOR)
    const client = await relay.connect()
    const sessions = await Promise.all(Array.from({ length: WRITERS }, () => db.session(db.writerUrl)))
    for (let lease = 0; lease < LEASES; lease++) {
      const end = await wake(relay, db, LEASE_MS)
      const from = client.changes().length
      const at = (offset: number) =>
        `select pg_sleep(greatest(0, ${end + offset} - extract(epoch from clock_timestamp()) * 1000) / 1000)`
      const write = (insertAt: number, commitAt: number, nested: boolean) => `
        begin; ${at(insertAt)}; ${nested ? "savepoint s;" : ""}
        insert into vote default values;
        ${nested ? "release s;" : ""} ${at(commitAt)}; commit`
      const writers = sessions.map((session, n) => {
        // The last to commit has left out the bell, so that no later one brings it along.
        const insertAt = n === 0 ? -20 - below(20) : below(60) - 40
        const lasts = [0, 2, below(50), 150, LEASE_MS][below(5)] as number
        return session.query(write(insertAt, n === 0 ? 2 * LEASE_MS + 50 : insertAt + lasts, below(3) === 0))
      })
      await Promise.all(writers)
      await client.count(from + WRITERS)
    }
    const ids = client.changes().map(({ id }) => id)
    t.equal(new Set(ids).size, LEASES * WRITERS, `seed ${seed}`)
    t.equal(ids.length, LEASES * WRITERS)
    await comesTo(relay, "quiet")
    const { heard, skipped } = relay.relay.status().bell
    t.ok(heard > 0 && skipped >= LEASES, `${heard} rang, ${skipped} did not`)
  },
)

t.test("the youngest transaction of all, which lies above every snapshot until it ends", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, {}, NO_FLOOR)
  const client = await relay.connect()
  const skipper = await openSkipper(db, 1, () => wake(relay, db, 2_000))
  await comesTo(relay, "tail")
  await pollsOn(relay, 5)
  await skipper.query("commit")
  t.match(await client.count(1), [{ data: { votes: 1 } }])
  await comesTo(relay, "quiet")
})

t.test("who has to wait for the log while the lease ends is waited for, and comes", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, {}, NO_FLOOR)
  const client = await relay.connect()
  const [locker, writer] = [await db.session(), await db.session()]
  const pid = await backendOf(writer)
  for (const sql of [
    "insert into vote (votes) values (1)",
    "select relay.broadcast('election_updates', '1')",
  ]) {
    const from = client.changes().length
    await wake(relay, db, 2_000)
    await locker.query("begin; lock table relay.change_0 in share mode")
    const writing = writer.query(`begin; ${sql}; commit`)
    await waitsForLock(db, pid)
    await comesTo(relay, "tail")
    await pollsOn(relay, 5)
    // It has a transaction id from before it looked whether to ring.
    t.equal(relay.relay.status().bell.mode, "tail")
    await locker.query("commit")
    await writing
    await client.count(from + 1)
    await comesTo(relay, "quiet")
  }
  t.equal(client.changes().length, 2)
})

t.test(
  "a lease that no read has shown: whenever there may have been one, the relay does the tail",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, {}, NO_FLOOR)
    const client = await relay.connect()
    const terminate = (name: string) =>
      db.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = $1",
        [`commitcast ${name}`],
      )
    const logged = (event: string) => until(event, () => relay.lines.some((line) => line.event === event))
    const cases: Array<[what: string, doubt: () => Promise<unknown>]> = [
      ["it was told of one", () => db.query("select pg_notify('election_updates', '{\"v\":1,\"lease\":1}')")],
      [
        "it was not listening",
        async () => {
          await terminate("listener")
          await logged("listener_down")
        },
      ],
      [
        "it was not reading",
        async () => {
          await terminate("feed")
          // That it is gone shows when it is used.
          await db.query('notify election_updates, \'{"v":1,"table":"","op":"","rows":1,"xid":"1"}\'')
          await logged("feed_down")
        },
      ],
    ]
    for (const [n, [what, doubt]] of cases.entries()) {
      await comesTo(relay, "quiet")
      const skipper = await openForgotten(db, n)
      await doubt()
      await until(`up: ${what}`, () => relay.relay.status().ready)
      await comesTo(relay, "tail")
      await pollsOn(relay, 3)
      await skipper.query("commit")
      await client.count(n + 1)
      t.match(client.changes().at(-1), { data: { votes: n } }, what)
    }
  },
)

t.test(
  "a lease that nobody is there to see costs few reads, and whoever comes gets the usual ones",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, {}, NO_FLOOR)
    const bell = () => relay.relay.status().bell
    async function pollsOfLease(): Promise<number> {
      await wake(relay, db, 1_500)
      const from = bell().polls
      await until("the lease is over", () => bell().mode !== "awake")
      return bell().polls - from
    }
    const unattended = await pollsOfLease()
    // One each 50 ms at the most, and a few of the tail.
    t.ok(unattended <= 30 + 5, `${unattended} reads`)
    const client = await relay.connect()
    await until("somebody is there", async () => (await pollsOfLease()) > unattended)
    await db.query("insert into vote default values")
    await client.count(1)
  },
)
