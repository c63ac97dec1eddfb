/** Writers that go on whatever happens to their sessions. */

import { setTimeout as sleep } from "node:timers/promises"
import type pg from "pg"
import { openSession } from "../harness/session.ts"

/** Rows of before are corrected and taken away, so that the table does not grow for ever. */
const KEPT = 5_000

const STATEMENTS = [
  "insert into vote (committee_id, votes) select 1 + (random() * 11)::int, (random() * 500)::int from generate_series(1, 3)",
  "update vote set votes = votes + 1 where id = (select id from vote order by id desc offset (random() * 50)::int limit 1)",
  "begin; insert into vote (committee_id, votes) values (1, 1); insert into guarantee (voter_name) values ('x'); commit",
  "begin; insert into attendance (voter_name) values ('x'); rollback",
  `delete from vote where id < (select max(id) from vote) - ${KEPT}`,
  "select relay.broadcast('election_updates', '{\"note\": \"still here\"}')",
]

/** Writes about so many transactions a second until it is stopped. @returns how many were committed. */
export async function write(databaseUrl: string, perSecond: number, signal: AbortSignal): Promise<number> {
  let session: pg.Client | undefined
  let written = 0
  for (let turn = 0; !signal.aborted; turn++) {
    try {
      session ??= await openSession(databaseUrl)
      await session.query(STATEMENTS[turn % STATEMENTS.length] as string)
      written++
    } catch {
      // Its database is away, or its session was ended: a writer of the night would come back as well.
      session?.end().catch(() => {})
      session = undefined
    }
    await sleep(1_000 / perSecond)
  }
  await session?.end()
  return written
}
