/** The feed against lost connections and restarts: every committed change once, or the client is told. */

import pg from "pg"
import t from "tap"
import { createChangelog } from "../../relay/feed/changelog.ts"
import { ownCluster } from "../helpers/cluster.ts"
import { database } from "../helpers/database.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const idsOf = (changes: Array<{ id?: string }>) => new Set(changes.map((change) => change.id))

async function execute(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(sql)
  await client.end()
}

t.test(
  "a killed reading session under load loses nothing, repeats nothing, and cuts no client off",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const client = await relay.connect()
    const kill = () =>
      db.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'commitcast feed'",
      )
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      const session = await db.session()
      for (let n = 0; n < 150; n++) {
        await session.query("insert into vote (committee_id, votes) values ($1, $2)", [writer + 1, n])
        if (writer === 0 && n % 50 === 25) await kill()
      }
    })
    await Promise.all(writers)
    const changes = await client.count(600)
    t.equal(idsOf(changes).size, 600)
    t.equal(changes.length, 600)
    for (let committee = 1; committee <= 4; committee++) {
      const votes = changes
        .filter(({ data }) => data?.committee_id === committee)
        .map(({ data }) => data?.votes)
      t.same(
        votes,
        Array.from({ length: 150 }, (_, n) => n),
        "in the order in which they were entered",
      )
    }
  },
)

t.test("without any bell the poll brings the changes", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  await db.query("set relay.bell = 'off'; insert into vote (votes) values (1)")
  t.match((await client.count(1))[0], { action: "create" })
})

t.test(
  "a relay whose database is unreachable says so, keeps its clients, and brings what was missed",
  async (t) => {
    const db = await database(t)
    const proxy = await startProxy(t, db.port)
    const relay = await startRelay(t, { url: db.url.replace(`:${db.port}/`, `:${proxy.port}/`) })
    const client = await relay.connect()
    proxy.refuse()
    proxy.cut()
    await until("not ready", async () => (await fetch(`${relay.url}/health/ready`)).status === 503)
    t.equal((await fetch(`${relay.url}/health/live`)).status, 200, "alive all the same")
    await db.query("insert into vote (votes) values (1), (2)")
    proxy.heal()
    await client.count(2)
    await until("ready", async () => (await fetch(`${relay.url}/health/ready`)).status === 200)
    t.equal(client.changes().length, 2)
  },
)

t.test(
  "a large batch that was sent whole is not read again when the session ends right after it",
  async (t) => {
    const db = await database(t)
    let cutAtEnd = false
    // The end of the transaction in which the pages were read.
    const proxy = await startProxy(t, db.port, (data) => {
      if (!cutAtEnd || !data.includes("ROLLBACK\0")) return data
      cutAtEnd = false
      proxy.cut()
      return Buffer.alloc(0)
    })
    const relay = await startRelay(t, { url: db.url.replace(`:${db.port}/`, `:${proxy.port}/`) })
    const client = await relay.connect()
    cutAtEnd = true
    await db.query("insert into vote (votes) select n from generate_series(1, 2500) n")
    await client.count(2_500)
    await until("cut", () => !cutAtEnd)
    await db.query("insert into vote (votes) values (0)")
    await client.first("the next", ({ data }) => data?.votes === 0)
    t.equal(client.changes().length, 2_501)
  },
)

t.test("a connection that is lost in the middle of a rotation fails it, and nothing else", async (t) => {
  const db = await database(t)
  const idle: string[] = []
  const proxy = await startProxy(t, db.port, (data) => {
    if (!data.includes("BEGIN\0")) return data
    proxy.cut()
    return Buffer.alloc(0)
  })
  const changelog = createChangelog(db.url.replace(`:${db.port}/`, `:${proxy.port}/`), ({ message }) =>
    idle.push(message),
  )
  t.teardown(() => changelog.close())
  await t.rejects(changelog.rotate(1, 1), { message: /terminated/ })
  await until("the connection is gone", () => proxy.count() === 0)
  t.same(idle, [])
  t.ok((await changelog.tracked()).length > 0, "the next query has another connection")
})

t.test("a database restarted in order: the relay goes on where it was", async (t) => {
  const cluster = await ownCluster(t)
  const relay = await startRelay(t, cluster)
  const client = await relay.connect()
  await execute(cluster.url, "insert into vote (votes) values (1)")
  await client.count(1)
  await cluster.stop("fast")
  await until("not ready", () => !relay.relay.status().ready)
  await cluster.start()
  await execute(cluster.url, "insert into vote (votes) values (2)")
  const changes = await client.count(2)
  t.same(
    changes.map(({ data }) => data?.votes),
    [1, 2],
  )
  t.equal(client.socket.readyState, client.socket.OPEN)
})

t.test(
  "a database killed with a commit that never reached the disk: who saw it is told to start anew",
  async (t) => {
    const cluster = await ownCluster(t, { synchronous_commit: "off", wal_writer_delay: 10_000 })
    const relay = await startRelay(t, cluster)
    const client = await relay.connect()
    await execute(cluster.superuserUrl, "checkpoint")
    await execute(cluster.url, "insert into vote (votes) values (1)")
    await client.count(1)
    await cluster.stop("immediate")
    await cluster.start()
    // Takes the transaction id that the lost vote had, before the relay is back.
    await execute(cluster.url, "insert into vote (votes) values (2)")
    t.equal((await client.closed).code, 4010)
    await until("a position", () => relay.relay.status().ready)
    const again = await relay.connect()
    await execute(cluster.url, "insert into vote (votes) values (3)")
    t.match((await again.count(1))[0], { data: { votes: 3 } })
  },
)

t.test(
  "a tracked table dropped or altered while the relay runs is reported, and the others go on",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const client = await relay.connect()
    await db.query("alter table guarantee rename column voter_name to voter; drop table attendance")
    await db.query("insert into guarantee (committee_id, voter) values (1, 'Ada')")
    await db.query("insert into vote (votes) values (1)")
    const changes = await client.count(2)
    t.match(
      changes[0],
      { data: { voter_name: "Ada" } },
      "under the name that was agreed, until tracked again",
    )
    const { tables } = await relay.relay.report()
    const problems = Object.fromEntries(tables.map(({ name, problem }) => [name, problem ?? ""]))
    t.match(problems["public.guarantee"], "renamed")
    t.match(problems["public.attendance"], "dropped")
    t.equal(problems["public.vote"], "")
  },
)
