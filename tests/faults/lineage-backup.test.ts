/** A base backup of a running server, started as a server of its own. */

import t from "tap"
import { execSql, noBinaries, ownCluster } from "../helpers/cluster.ts"
import { VERSIONS } from "../helpers/log.ts"
import { startRelay } from "../helpers/relay.ts"
import { continued, keptCursor, refused, writePast } from "../helpers/returning.ts"

for (const version of VERSIONS)
  t.test(
    `PostgreSQL ${version}: a base backup of the running server, started on its own, continues nobody`,
    { skip: noBinaries(version) },
    async (t) => {
      const original = await ownCluster(t, { fsync: "off", autovacuum: "off" }, version)
      const relay = await startRelay(t, original)
      const client = await relay.connect()
      await execSql(original.url, "insert into vote (votes) values (1)")
      await client.count(1)
      const before = await keptCursor(client)
      const restored = await original.baseBackup()
      await execSql(original.url, "insert into vote (votes) values (2)")
      await client.count(2)
      const after = await keptCursor(client)
      await restored.start()
      t.same(await execSql(restored.url, "select votes from vote"), [{ votes: 1 }], "as it was at the backup")
      await writePast(restored.url, after)
      const relayOfRestored = await startRelay(t, restored)
      await refused(t, relayOfRestored, restored.url, before)
      await refused(t, relayOfRestored, restored.url, after)
      await execSql(original.url, "insert into vote (votes) values (3)")
      await client.count(3)
      await continued(t, relay, original.url, after, [3])
      t.equal(client.socket.readyState, client.socket.OPEN, "the original noticed nothing")
    },
  )
