/** Bulk imports, under the flag: no change is told row by row, and each statement as one `bulk_load`. */

import type pg from "pg"
import { type Desk, inventVoter, isTime, placeOf } from "./desk.ts"
import { entriesOf, insert } from "./entry.ts"
import type { Task } from "./script.ts"

/** The parts of the night at which what has come together is imported: before it is busy, when the polls close, at the end. */
const TIMES = [0.1, 0.56, 0.98]

/** Works until all is imported. An import is one transaction. */
export async function importAll(client: pg.Client, desk: Desk): Promise<void> {
  let done = 0
  for (const time of TIMES) {
    if (!(await isTime(desk, time))) return
    const end = desk.script.imports.findIndex(({ at }) => at > time)
    const due = desk.script.imports.slice(done, end < 0 ? undefined : end)
    done += due.length
    if (due.length > 0) await load(client, desk, due)
  }
}

async function load(client: pg.Client, desk: Desk, tasks: Task[]): Promise<void> {
  const { tally, counts, night } = desk
  const of = <Kind extends Task["kind"]>(kind: Kind) =>
    tasks.filter((task): task is Task & { kind: Kind } => task.kind === kind)
  const pledges = of("pledge").map((task) => placeOf(desk, task))
  const entries = of("sheet").flatMap((task) => entriesOf(desk, task))
  await client.query("begin; set local relay.bulk_load = 'summary'")
  await client.query(
    `insert into public.guarantee (election_id, committee_id, voter_name) select * from unnest($1::int[], $2::int[], $3::text[])`,
    [
      pledges.map(({ election }) => election),
      pledges.map(({ committee }) => committee),
      pledges.map(inventVoter),
    ],
  )
  await insert(client, entries, `Import, ${night}`)
  await client.query("commit")
  for (const { candidate, votes } of entries) tally.add(candidate, votes)
  counts.entries += entries.length
  counts.pledges += pledges.length
}
