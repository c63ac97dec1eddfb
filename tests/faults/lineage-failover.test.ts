/** Real streaming replication: a hot standby gives no positions, and a promoted one continues nobody. */

import pg from "pg"
import t from "tap"
import { execSql, noBinaries, ownCluster } from "../helpers/cluster.ts"
import { refusal, VERSIONS } from "../helpers/log.ts"
import { startProxy } from "../helpers/proxy.ts"
import { launchRelay, startRelay } from "../helpers/relay.ts"
import { cutOff, keptCursor, refused, votesOf, writePast } from "../helpers/returning.ts"
import { until } from "../helpers/wait.ts"

const QUIET = { fsync: "off", autovacuum: "off" }

for (const version of VERSIONS)
  t.test(`PostgreSQL ${version}: a failover`, { skip: noBinaries(version) }, async (t) => {
    const primary = await ownCluster(t, QUIET, version)
    const proxy = await startProxy(t, primary.port)
    const moving = primary.url.replace(`:${primary.port}/`, `:${proxy.port}/`)
    const relay = await startRelay(t, { url: moving })
    const client = await relay.connect()
    await execSql(primary.url, "insert into vote (votes) values (1)")
    await client.count(1)
    const before = await keptCursor(client)
    const standby = await primary.baseBackup({ standby: true })
    await standby.start()
    const standbyRelay = await launchRelay(t, standby)
    await execSql(primary.url, "insert into vote (votes) values (2)")
    await client.count(2)
    const after = await keptCursor(client)
    await until(
      "the standby has it",
      async () => (await execSql(standby.url, "select from vote")).length === 2,
    )
    const open = await execSql<{ it: string }>(primary.url, "select relay.cursor() as it")

    await t.test("the standby refuses relay.cursor(), and a relay on it waits", async (t) => {
      t.match(await execSql(standby.url, "select pg_is_in_recovery() as it"), [{ it: true }])
      for (const begin of ["begin", "begin isolation level repeatable read read only"])
        t.match(await refusal(execSql(standby.url, begin, "select relay.cursor()")), {
          code: "0A000",
          message: /relay.cursor\(\) cannot be used on a standby/,
          hint: /from the primary/,
        })
      await until("its relay has tried", () => {
        const { feed } = standbyRelay.relay.status()
        return feed.kind === "down" && feed.attempts >= 2
      })
      const { feed, ready } = standbyRelay.relay.status()
      t.match(feed, { kind: "down", error: /recovery/ })
      t.equal(ready, false)
      t.equal((await fetch(`${standbyRelay.url}/health/live`)).status, 200)
      t.equal((await fetch(`${standbyRelay.url}/health/ready`)).status, 503)
      await t.rejects(standbyRelay.connect(), /503/)
    })

    await t.test(
      "after the promotion the relay there becomes ready, and refuses the old cursors",
      async (t) => {
        const reader = new pg.Client({ connectionString: standby.url })
        await reader.connect()
        t.teardown(() => reader.end())
        await reader.query("begin isolation level repeatable read read only; select from vote")
        await standby.promote()
        await writePast(standby.url, after)
        await standbyRelay.relay.whenReady()
        const { rows } = await reader.query("select relay.cursor() as it")
        t.match(rows[0].it, /^0:/, "a snapshot of the standby promises nothing after it either")
        for (const cursor of [before, after, open[0]?.it ?? ""])
          await refused(t, standbyRelay, standby.url, cursor)
      },
    )

    await t.test("a relay whose database address moves there tells its clients to load anew", async (t) => {
      await execSql(primary.url, "insert into vote (votes) values (3)")
      t.same(votesOf(await client.count(3)), [1, 2, 3], "until then it serves the old one")
      const last = await keptCursor(client)
      proxy.aim(standby.port)
      proxy.cut()
      await cutOff(t, client)
      await until("ready", () => relay.relay.status().ready)
      await writePast(standby.url, last)
      await refused(t, relay, standby.url, last)
    })
  })
