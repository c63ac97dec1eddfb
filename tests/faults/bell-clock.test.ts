/** Clocks that are set while a lease is in force: the server's, by which leases are measured, and the relay's own. */

import { chmod, writeFile } from "node:fs/promises"
import { join } from "node:path"
import pg from "pg"
import t, { type Test } from "tap"
import { openClient } from "../helpers/client.ts"
import { ownCluster } from "../helpers/cluster.ts"
import { workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { fakedBy, NO_FAKETIME } from "../helpers/faketime.ts"
import { comesTo, leaseInForce, openSkipper, startBurst, wake } from "../helpers/lease.ts"
import { processOn } from "../helpers/process.ts"
import { NO_FLOOR, startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** A file that sets the clock of a process, which may run as another user. */
async function clockFile(t: Test): Promise<string> {
  const directory = await workDirectory(t)
  await chmod(directory, 0o755)
  const file = join(directory, "clock")
  await writeFile(file, "+0")
  return file
}

/** Sessions on a server whose clock `set` moves by so many seconds. */
async function serverWithClock(t: Test) {
  const file = await clockFile(t)
  const cluster = await ownCluster(t, {}, "18", file)
  const sessions: pg.Client[] = []
  t.teardown(() => Promise.all(sessions.map((session) => session.end())))
  async function session() {
    const client = new pg.Client({ connectionString: cluster.url })
    await client.connect()
    sessions.push(client)
    return client
  }
  const own = await session()
  const query = async <Row extends pg.QueryResultRow>(sql: string, values?: unknown[]) =>
    (await own.query<Row>(sql, values)).rows
  const offset = async () => {
    const [row] = await query<{ now: number }>("select extract(epoch from clock_timestamp())::float8 as now")
    return (row?.now ?? 0) - Date.now() / 1_000
  }
  let total = 0
  return {
    url: cluster.url,
    session,
    query,
    async set(seconds: number) {
      total += seconds
      await writeFile(file, `${total < 0 ? "" : "+"}${total}`)
      await until(`the clock is off by ${total} s`, async () => Math.abs((await offset()) - total) < 0.5)
    },
  }
}

t.test("the clock of the server is set while a lease is in force", { skip: NO_FAKETIME }, async (t) => {
  const db = await serverWithClock(t)
  // What no bell and no lease brings never comes.
  const relay = await startRelay(t, db, {}, NO_FLOOR)
  const client = await relay.connect()
  let written = 0
  const comes = async (what: string) => {
    await client.count(++written)
    t.equal(client.changes().length, written, what)
  }
  const vote = "insert into vote (votes) values (1)"

  await wake(relay, db, 1_000)
  await comesTo(relay, "quiet")
  await db.set(-3)
  await db.query(vote)
  await comes("back by 3 s, after the lease: it stays over")

  const longer = await openSkipper(db, 1, async () => {
    await wake(relay, db, 1_000)
    await db.set(-3)
  })
  await comesTo(relay, "tail")
  await longer.query("commit")
  await comes("back by 3 s, within it: it lasts 3 s longer, and the relay stays awake as long")

  const voided = await openSkipper(db, 1, () => wake(relay, db, 2_000))
  await db.set(-8)
  await db.query(vote)
  await comes("back by 8 s: the lease is void, writers ring")
  await voided.query("commit")
  await comes("and who has seen it is waited for")
  await comesTo(relay, "quiet")
  await db.set(6)
  await db.query(vote)
  await comes("when its end is less than 5 s ahead it does not come into force again")

  const burst = await startBurst(db)
  await comesTo(relay, "awake")
  await db.set(-8)
  await until("a lease by the new clock", () => leaseInForce(db))
  await burst.stop()
  written += burst.committed()
  await client.count(written)

  const ahead = await openSkipper(db, 1, () => wake(relay, db, 2_000))
  await db.set(3_600)
  await comesTo(relay, "tail")
  await ahead.query("commit")
  await comes("forward by an hour: the lease is over, and who has seen it is waited for")
  await comesTo(relay, "quiet")
  t.equal(new Set(client.changes().map(({ id }) => id)).size, written)
})

t.test("the clock of a busy relay is set", { skip: NO_FAKETIME }, async (t) => {
  const db = await database(t)
  const clock = await clockFile(t)
  const relay = await processOn(t, db.url, fakedBy(clock))
  await relay.start()
  const client = await openClient(t, `${relay.url.replace("http", "ws")}/ws`, {
    headers: { authorization: `Bearer ${token({}, { expiresIn: "30 days" })}` },
  })
  const is = (mode: string) =>
    until(`the bell is ${mode}`, async () => {
      const text = await (await fetch(`${relay.url}/metrics`)).text()
      return text.includes(`relay_bell_mode{mode="${mode}"} 1`)
    })
  let written = 0
  for (const offset of ["+7200", "-7200", "+0"]) {
    await is("quiet")
    const burst = await startBurst(db)
    await is("awake")
    await writeFile(clock, offset)
    const from = burst.committed()
    await until("they write on", () => burst.committed() > from + 200)
    await burst.stop()
    written += burst.committed()
    await client.count(written)
    await is("quiet")
  }
  t.equal(new Set(client.changes().map(({ id }) => id)).size, written)
  t.equal(client.changes().length, written)
})
