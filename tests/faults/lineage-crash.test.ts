/** A crash that loses delivered commits: their transaction ids come again, and nobody may go on from them. */

import pg from "pg"
import t, { type Test } from "tap"
import type { Client } from "../helpers/client.ts"
import { execSql, noBinaries, type OwnCluster, ownCluster } from "../helpers/cluster.ts"
import { VERSIONS } from "../helpers/log.ts"
import { startRelay, type TestRelay } from "../helpers/relay.ts"
import { cutOff, keptCursor, refused, writePast } from "../helpers/returning.ts"
import { until } from "../helpers/wait.ts"

/** Commits stay in memory until something else flushes; without images of whole pages they are too small to be written. */
const ASYNCHRONOUS = {
  synchronous_commit: "off",
  wal_writer_delay: 10_000,
  wal_writer_flush_after: "1GB",
  checkpoint_timeout: "1h",
  full_page_writes: "off",
  autovacuum: "off",
}

const startedAt = async (cluster: OwnCluster) =>
  (await execSql<{ it: string }>(cluster.superuserUrl, "select pg_postmaster_start_time()::text as it"))[0]
    ?.it

/** The whole server at once. */
async function killServer(cluster: OwnCluster): Promise<void> {
  await cluster.kill()
  await cluster.start()
}

/** One server process: the others are ended by the postmaster, which lives on and recovers. */
async function killBackend(cluster: OwnCluster): Promise<void> {
  const victim = new pg.Client({ connectionString: cluster.superuserUrl })
  const gone = new Promise<void>((resolve) => victim.on("end", () => resolve()))
  victim.on("error", () => {})
  await victim.connect()
  const { rows } = await victim.query<{ pid: number }>("select pg_backend_pid() as pid")
  process.kill(rows[0]?.pid as number, "SIGKILL")
  await gone
  await until("the server is back", () =>
    startedAt(cluster).then(
      () => true,
      () => false,
    ),
  )
}

/**
 * Delivers a vote to a client and crashes, until that vote is truly lost, and with it its transaction id: where the
 * relay stays, it may be the first to take that id.
 */
async function loseDelivered(
  t: Test,
  cluster: OwnCluster,
  crash: (cluster: OwnCluster) => Promise<void>,
  relayStays: boolean,
): Promise<{ relay: TestRelay; client: Client; cursor: string }> {
  for (let attempt = 1; attempt <= 5; attempt++) {
    const relay = await startRelay(t, cluster)
    const client = await relay.connect()
    await execSql(cluster.superuserUrl, "checkpoint")
    await execSql(cluster.url, `insert into vote (votes) values (${attempt})`)
    const [change] = await client.count(1)
    const cursor = await keptCursor(client)
    if (!relayStays) await relay.stop()
    await crash(cluster)
    const [now] = await execSql<{ gone: boolean; again: boolean }>(
      cluster.url,
      `select not exists (select from vote where votes = ${attempt}) as gone,
              pg_snapshot_xmax(pg_current_snapshot()) <= '${change?.tx?.id}'::xid8 as again`,
    )
    if (now?.gone && (now.again || relayStays)) return { relay, client, cursor }
    t.comment(`attempt ${attempt}: the commit had reached the disk`)
    await relay.stop()
  }
  throw new Error("no commit could be lost: this test proves nothing here")
}

for (const version of VERSIONS)
  for (const [what, crash] of [
    ["kill -9 of the server", killServer],
    ["kill -9 of one server process, the start time staying", killBackend],
  ] as const)
    t.test(`PostgreSQL ${version}, ${what}`, { skip: noBinaries(version) }, async (t) => {
      const cluster = await ownCluster(t, ASYNCHRONOUS, version)

      t.test("with the relay connected: clients are told by 4010, and again when they return", async (t) => {
        const before = await startedAt(cluster)
        const { relay, client, cursor } = await loseDelivered(t, cluster, crash, true)
        if (crash === killBackend) t.equal(await startedAt(cluster), before)
        await writePast(cluster.url, cursor)
        await cutOff(t, client)
        await until("ready", () => relay.relay.status().ready)
        await refused(t, relay, cluster.url, cursor)
        await relay.stop()
      })

      t.test("with the relay away: a relay that comes later refuses the cursor", async (t) => {
        const { cursor } = await loseDelivered(t, cluster, crash, false)
        await writePast(cluster.url, cursor)
        await refused(t, await startRelay(t, cluster), cluster.url, cursor)
      })
    })
