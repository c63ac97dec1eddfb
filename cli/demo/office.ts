/** The office: brings in with each hour, by COPY, the lists that committees have handed in. */

import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import type pg from "pg"
import { from } from "pg-copy-streams"
import { type Desk, inventVoter, isTime, placeOf } from "./desk.ts"
import { type Entry, entriesOf } from "./entry.ts"
import type { Task } from "./script.ts"

/** Works until all lists are in. An hour's lists are one transaction. */
export async function bringLists(client: pg.Client, desk: Desk): Promise<void> {
  let done = 0
  for (const hour of desk.clock.hours()) {
    if (!(await isTime(desk, hour))) return
    const end = desk.script.lists.findIndex(({ at }) => at > hour)
    const due = desk.script.lists.slice(done, end < 0 ? undefined : end)
    done += due.length
    if (due.length > 0) await bring(client, desk, due)
  }
}

async function bring(client: pg.Client, desk: Desk, tasks: Task[]): Promise<void> {
  const { tally, counts, clock, night } = desk
  const written: Entry[] = []
  await client.query("begin")
  const pledges = await copy(
    client,
    "public.guarantee (election_id, committee_id, voter_name)",
    function* () {
      for (const task of tasks) if (task.kind === "pledge") yield [...place(desk, task), inventVoter()]
    },
  )
  const present = await copy(
    client,
    "public.attendance (election_id, committee_id, voter_name, marked_at)",
    function* () {
      for (const task of tasks)
        if (task.kind === "arrival")
          yield [...place(desk, task), inventVoter(), clock.at(task.at).toISOString()]
    },
  )
  await copy(
    client,
    "public.vote (election_id, committee_id, candidate_id, votes, entered_by)",
    function* () {
      for (const task of tasks)
        for (const entry of task.kind === "sheet" ? entriesOf(desk, task) : []) {
          written.push(entry)
          yield [entry.election, entry.committee, entry.candidate, entry.votes, `Office, ${night}`]
        }
    },
  )
  await client.query("commit")
  for (const { candidate, votes } of written) tally.add(candidate, votes)
  counts.entries += written.length
  counts.pledges += pledges
  counts.present += present
}

const place = (desk: Desk, task: Task): number[] => Object.values(placeOf(desk, task))

/** @param rows of values that need no escaping in COPY's text format. @returns how many there were. */
async function copy(
  client: pg.Client,
  target: string,
  rows: () => Iterable<Array<string | number>>,
): Promise<number> {
  let count = 0
  function* lines() {
    for (const row of rows()) {
      count++
      yield `${row.join("\t")}\n`
    }
  }
  await pipeline(Readable.from(lines()), client.query(from(`copy ${target} from stdin`)))
  return count
}
