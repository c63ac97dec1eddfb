/** The electoral register in the database: elections, candidates and committees have their rows there. */

import pg from "pg"
import { ConfigError } from "../../relay/config.ts"
import type { Returns } from "./returns.ts"

/** The ids of what the returns name, by its index there. */
export interface Register {
  elections: number[]
  candidates: number[]
  committees: number[]
}

/** Enters what is not there yet. Found again by its name, a candidate by election and name. */
export async function enrol(client: pg.Client, returns: Returns): Promise<Register> {
  const elections = await enrolNamed(client, "election", returns.elections)
  const committees = await enrolNamed(
    client,
    "committee",
    returns.committees.map(({ name }) => name),
  )
  const values = [
    returns.candidates.map(({ election }) => elections[election]),
    returns.candidates.map(({ name }) => name),
  ]
  await client.query(
    "insert into public.candidate (election_id, name) select * from unnest($1::int[], $2::text[]) on conflict do nothing",
    values,
  )
  const { rows } = await client.query<{ id: number }>(
    `select c.id from unnest($1::int[], $2::text[]) with ordinality as u(election_id, name, n)
     join public.candidate c using (election_id, name) order by n`,
    values,
  )
  return { elections, committees, candidates: rows.map(({ id }) => id) }
}

async function enrolNamed(
  client: pg.Client,
  table: "election" | "committee",
  names: string[],
): Promise<number[]> {
  await client.query(`insert into public.${table} (name) select unnest($1::text[]) on conflict do nothing`, [
    names,
  ])
  const { rows } = await client.query<{ id: number }>(
    `select t.id from unnest($1::text[]) with ordinality as u(name, n) join public.${table} t using (name) order by n`,
    [names],
  )
  return rows.map(({ id }) => id)
}

/** Empties the demo's tables, the register too. @throws ConfigError where somebody holds one. */
export async function reset(client: pg.Client): Promise<void> {
  try {
    await client.query(
      `begin; set local lock_timeout = '10s';
       truncate public.guarantee, public.attendance, public.vote, public.candidate, public.committee, public.election restart identity;
       commit`,
    )
  } catch (error) {
    await client.query("rollback")
    if (!(error instanceof pg.DatabaseError) || error.code !== "55P03") throw error
    throw new ConfigError("--reset: a table is held by another transaction; end it and try again", {
      cause: error,
    })
  }
}
