/** Entries: the rows of the table `vote`. */

import type pg from "pg"
import type { Desk } from "./desk.ts"
import type { Task } from "./script.ts"

export interface Entry {
  election: number
  committee: number
  candidate: number
  votes: number
}

/** What a sheet has, with the ids that the database knows it by. */
export function entriesOf(
  { script: { returns }, register }: Desk,
  { committee, from, to }: Task & { kind: "sheet" },
): Entry[] {
  const { candidates, votes } = returns.committees[committee] as (typeof returns.committees)[number]
  return candidates.slice(from, to).map((candidate, n) => ({
    election: register.elections[returns.candidates[candidate]?.election as number] as number,
    committee: register.committees[committee] as number,
    candidate: register.candidates[candidate] as number,
    votes: votes[from + n] as number,
  }))
}

/** @returns the ids of the rows. */
export async function insert(client: pg.Client, entries: Entry[], by: string): Promise<string[]> {
  const { rows } = await client.query<{ id: string }>(
    `insert into public.vote (election_id, committee_id, candidate_id, votes, entered_by)
     select *, $5 from unnest($1::int[], $2::int[], $3::int[], $4::int[]) returning id`,
    [
      entries.map(({ election }) => election),
      entries.map(({ committee }) => committee),
      entries.map(({ candidate }) => candidate),
      entries.map(({ votes }) => votes),
      by,
    ],
  )
  return rows.map(({ id }) => id)
}
