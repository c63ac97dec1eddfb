/** pg_dump takes its time: rotation waits for it, nobody waits for rotation. */

import { spawn } from "node:child_process"
import { once } from "node:events"
import t from "tap"
import { createChangelog } from "../../relay/feed/changelog.ts"
import { database } from "../helpers/database.ts"
import { noDump } from "../helpers/dump.ts"
import { missing } from "../helpers/log.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.test(
  "while pg_dump holds the log, rotation is refused, and neither writers nor the feed queue behind it",
  { skip: missing("15") || noDump("15") },
  async (t) => {
    const db = await database(t, { version: "15" })
    const relay = await startRelay(t, db)
    const client = await relay.connect()
    await db.query(
      "insert into guarantee (note) select repeat(md5(g::text), 60) from generate_series(1, 1500) g",
    )
    await client.count(1_500)
    // Nobody reads what it prints, so that it stands still with all its locks.
    const dump = spawn("pg_dump", ["-d", db.url], { stdio: ["ignore", "pipe", "inherit"] })
    t.teardown(() => dump.kill("SIGKILL"))
    await until("it holds the log", async () => {
      const rows = await db.query(
        `select from pg_stat_activity a join pg_locks l using (pid)
         where application_name = 'pg_dump' and l.relation = 'relay.change_1'::regclass`,
      )
      return rows.length > 0
    })
    const changelog = createChangelog(db.url, () => {})
    t.teardown(() => changelog.close())
    const writer = await db.session()
    // Far more than a rotation may hold anybody up, far less than the dump would.
    await writer.query("set lock_timeout = '5s'")
    let rotating = true
    const rotations = (async () => {
      const results = new Set<string>()
      while (rotating) results.add(await changelog.rotate(0, 0))
      return results
    })()
    for (let n = 0; n < 50; n++) {
      await writer.query("insert into vote (votes) values ($1)", [n])
      await client.count(1_501 + n)
    }
    rotating = false
    t.same([...(await rotations)], ["refused"])
    dump.stdout.resume()
    const [code] = await once(dump, "exit")
    t.equal(code, 0)
    t.equal(await changelog.rotate(0, 0), "done", "when the dump is done")
  },
)
