/** The tally: what was written for each candidate, counted by those who wrote it and held against what others make of it. */

import type pg from "pg"

/** Votes by the candidate's id. */
export type Totals = ReadonlyMap<number, bigint>

export class Tally {
  readonly #votes = new Map<number, bigint>()

  get totals(): Totals {
    return this.#votes
  }

  /** To be called when it is committed. @param votes below 0 where some were taken away. */
  add(candidate: number, votes: number): void {
    this.#votes.set(candidate, (this.#votes.get(candidate) ?? 0n) + BigInt(votes))
  }
}

/** What the tables say, of every candidate. @param night only what was entered in that night; otherwise all there is. */
export async function readTotals(client: pg.Client, night?: string): Promise<Totals> {
  const { rows } = await client.query<{ id: number; votes: string }>(
    `select c.id, coalesce(v.votes, 0)::text as votes from public.candidate c left join (
       select candidate_id as id, sum(votes) as votes from public.vote
       where $1::text is null or right(entered_by, length($1)) = $1 group by 1) v using (id)`,
    [night ?? null],
  )
  return new Map(rows.map(({ id, votes }) => [id, BigInt(votes)]))
}

/** The candidates of whom the tables say something else. */
export const differing = (tables: Totals, others: Totals): number[] =>
  [...tables.keys()].filter((id) => tables.get(id) !== (others.get(id) ?? 0n))
