/** The adaptive bell: while the relay polls writers do not ring, and nothing is lost on the way in or out. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.test(
  "many writers wake the relay, which polls and lets go again: few bells, nothing lost, not even who skipped the bell and committed late",
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const client = await relay.connect()
    const slow = await db.session()
    const writers = Array.from({ length: 12 }, async (_, writer) => {
      const session = await db.session()
      for (let n = 0; n < 250; n++)
        await session.query("insert into vote (committee_id, votes) values ($1, $2)", [writer + 1, n])
    })
    await until("the relay polls", () => relay.relay.status().bell.mode === "awake")
    // Sees the lease, so does not ring, and is still open when the lease is over.
    await slow.query("begin; insert into vote (votes) values (77)")
    await Promise.all(writers)
    await until("the lease is over", () => relay.relay.status().bell.mode === "tail")
    await slow.query("commit")
    const changes = await client.count(3_001)
    t.equal(new Set(changes.map(({ id }) => id)).size, 3_001)
    t.equal(changes.length, 3_001)
    await until("quiet again", () => relay.relay.status().bell.mode === "quiet")
    const { values } = await relay.relay.metrics.bells.get()
    const bells = values.find(({ labels }) => labels.kind === "bell")?.value ?? 0
    t.ok(bells < 1_500, `${bells} bells for 3,001 commits`)
  },
)
