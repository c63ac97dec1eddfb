/** A server stopped in order goes on where it was; one that crashed does not, whatever it wrote to disk. */

import pg from "pg"
import t from "tap"
import { execSql, noBinaries, ownCluster } from "../helpers/cluster.ts"
import { VERSIONS } from "../helpers/log.ts"
import { startRelay } from "../helpers/relay.ts"
import { continued, cutOff, keptCursor, refused, votesOf, writePast } from "../helpers/returning.ts"
import { until } from "../helpers/wait.ts"

const SETTINGS = { autovacuum: "off", max_prepared_transactions: 2 }
const sqlCursor = async (url: string): Promise<string> =>
  (await execSql<{ it: string }>(url, "select relay.cursor() as it"))[0]?.it ?? ""

for (const version of VERSIONS)
  t.test(`PostgreSQL ${version}`, { skip: noBinaries(version) }, async (t) => {
    const cluster = await ownCluster(t, SETTINGS, version)
    const vote = (votes: number) => execSql(cluster.url, `insert into vote (votes) values (${votes})`)
    /** What a client has that has seen all of it until now. */
    async function present(): Promise<string> {
      const relay = await startRelay(t, cluster)
      const client = await relay.connect()
      await vote(0)
      await client.first("the vote", ({ data }) => data?.votes === 0)
      const cursor = await keptCursor(client)
      await relay.stop()
      return cursor
    }

    t.test("stopped in order and started: who was away gets everything, who stayed too", async (t) => {
      const away = await present()
      const relay = await startRelay(t, cluster)
      const client = await relay.connect()
      const open = new pg.Client({ connectionString: cluster.url })
      open.on("error", () => {})
      await open.connect()
      await open.query("begin; insert into vote (votes) values (99)")
      await vote(1)
      await client.count(1)
      await cluster.stop("fast")
      await cluster.start()
      await vote(2)
      t.same(votesOf(await client.count(2)), [1, 2])
      await continued(t, relay, cluster.url, away, [1, 2])
      t.equal(client.socket.readyState, client.socket.OPEN)
      await relay.stop()
    })

    t.test("twice in a row, with a relay in between and without", async (t) => {
      const away = await present()
      await vote(3)
      for (const met of [false, true, false]) {
        await cluster.stop("fast")
        await cluster.start()
        if (met) await (await startRelay(t, cluster)).stop()
      }
      await vote(4)
      await continued(t, await startRelay(t, cluster), cluster.url, away, [3, 4])
    })

    t.test("a transaction prepared before and committed after belongs to what was missed", async (t) => {
      await execSql(
        cluster.url,
        "set relay.bell = 'off'",
        "begin",
        "insert into vote (votes) values (5)",
        "prepare transaction 'held'",
      )
      const away = await present()
      await cluster.stop("fast")
      await cluster.start()
      await execSql(cluster.url, "commit prepared 'held'")
      await continued(t, await startRelay(t, cluster), cluster.url, away, [5])
    })

    t.test(
      "relay.cursor() before any relay has met the server promises nothing; afterwards it does",
      async (t) => {
        await present()
        await cluster.stop("fast")
        await cluster.start()
        const early = await sqlCursor(cluster.url)
        t.match(early, /^0:/)
        const relay = await startRelay(t, cluster)
        await writePast(cluster.url, early)
        await refused(t, relay, cluster.url, early)
        const cursor = await sqlCursor(cluster.url)
        await vote(6)
        await continued(t, relay, cluster.url, cursor, [6])
        await relay.stop()
      },
    )

    t.test(
      "stopped at once: a crash, so nobody is continued, nor are those of before an earlier stop in order",
      async (t) => {
        const first = await present()
        await cluster.stop("fast")
        await cluster.start()
        const second = await present()
        const relay = await startRelay(t, cluster)
        const client = await relay.connect()
        const bySql = await sqlCursor(cluster.url)
        await cluster.stop("immediate")
        await cluster.start()
        await cutOff(t, client)
        await until("ready", () => relay.relay.status().ready)
        await writePast(cluster.url, bySql)
        for (const cursor of [first, second, bySql]) await refused(t, relay, cluster.url, cursor)
      },
    )
  })
