/** Copies of a stopped server's data, used beside it and put back: which cursors hold where. */

import t, { type Test } from "tap"
import { execSql, noBinaries, type OwnCluster, ownCluster } from "../helpers/cluster.ts"
import { VERSIONS } from "../helpers/log.ts"
import { startRelay, type TestRelay } from "../helpers/relay.ts"
import { continued, cutOff, keptCursor, refused, writePast } from "../helpers/returning.ts"

const QUIET = { fsync: "off", autovacuum: "off" }

/** Writes a vote with a client connected. @returns the client's cursor after it. */
async function seen(relay: TestRelay, cluster: OwnCluster, vote: number): Promise<string> {
  const client = await relay.connect()
  await execSql(cluster.url, `insert into vote (votes) values (${vote})`)
  await client.count(1)
  const cursor = await keptCursor(client)
  client.socket.terminate()
  return cursor
}

/** Stops a relay before its server, so that it never reaches another one that takes the port. */
async function withRelay<T>(
  t: Test,
  cluster: OwnCluster,
  work: (relay: TestRelay) => Promise<T>,
): Promise<T> {
  const relay = await startRelay(t, cluster)
  const result = await work(relay)
  await relay.stop()
  return result
}

for (const version of VERSIONS)
  t.test(`PostgreSQL ${version}`, { skip: noBinaries(version) }, async (t) => {
    t.test("a cold copy: what was before goes on in both, what came after only where it was", async (t) => {
      const original = await ownCluster(t, QUIET, version)
      const before = await withRelay(t, original, (relay) => seen(relay, original, 1))
      await execSql(original.url, "insert into vote (votes) values (2)")
      await original.stop("fast")
      const copy = await original.copy()
      await Promise.all([original.start(), copy.start()])
      await execSql(original.url, "insert into vote (votes) values (3)")
      await execSql(copy.url, "insert into vote (votes) values (4)")
      await Promise.all([
        withRelay(t, original, (relay) => continued(t, relay, original.url, before, [2, 3])),
        withRelay(t, copy, (relay) => continued(t, relay, copy.url, before, [2, 4])),
      ])
      const [after, afterInCopy] = await Promise.all([
        withRelay(t, original, (relay) => seen(relay, original, 5)),
        withRelay(t, copy, (relay) => seen(relay, copy, 6)),
      ])
      const [bySql] = await execSql<{ it: string }>(copy.url, "select relay.cursor() as it")
      await writePast(copy.url, after)
      await writePast(original.url, afterInCopy)
      await withRelay(t, original, async (relay) => {
        await refused(t, relay, original.url, afterInCopy)
        await refused(t, relay, original.url, bySql?.it ?? "")
      })
      await withRelay(t, copy, (relay) => refused(t, relay, copy.url, after))
    })

    t.test(
      "an older copy put back: what it never saw is refused, although its xids are used again",
      async (t) => {
        const cluster = await ownCluster(t, QUIET, version)
        const before = await withRelay(t, cluster, (relay) => seen(relay, cluster, 1))
        await cluster.stop("fast")
        const older = await cluster.copy()
        await cluster.start()
        const relay = await startRelay(t, cluster)
        const client = await relay.connect()
        await execSql(cluster.url, "insert into vote (votes) values (2)")
        await client.count(1)
        const after = await keptCursor(client)
        await cluster.stop("fast")
        await cluster.replaceBy(older)
        await cluster.start()
        t.same(
          await execSql(cluster.url, "select votes from vote order by id"),
          [{ votes: 1 }],
          "back in time",
        )
        await writePast(cluster.url, after)
        await cutOff(t, client)
        await withRelay(t, cluster, async (relay) => {
          await refused(t, relay, cluster.url, after)
          const votes = await execSql<{ votes: number }>(
            cluster.url,
            "select votes from vote where votes <> 1 order by id",
          )
          await continued(
            t,
            relay,
            cluster.url,
            before,
            votes.map(({ votes }) => votes),
          )
        })
      },
    )
  })
