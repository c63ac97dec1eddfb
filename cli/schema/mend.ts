/** Mends what is there but does not work: triggers that are disabled or gone, and row level security on tables of ours. */

import type pg from "pg"
import { quoteIdentifier } from "./database.ts"
import { LOCK_TIMEOUT } from "./locks.ts"

const HIDDEN = `
  select relname::text as name from pg_class where relnamespace = 'relay'::regnamespace and relrowsecurity order by 1`

const PROBLEMS =
  "select target::oid::text as oid, name from relay.tracked where problem is not null order by name"

/** The role may not, or somebody is in the way: a relay or the next call may. */
const NOT_NOW = new Set(["42501", "55P03", "40P01"])

/** @returns the names of the tables that were mended, as far as this role may. */
export async function mend(client: pg.Client): Promise<string[]> {
  const mended: string[] = []
  const attempt = async (name: string, work: () => Promise<boolean>) => {
    try {
      if (await work()) mended.push(name)
    } catch (error) {
      if (!NOT_NOW.has((error as { code?: string }).code ?? "")) throw error
    }
  }
  await client.query(`set lock_timeout = '${LOCK_TIMEOUT}'`)
  for (const { name } of (await client.query<{ name: string }>(HIDDEN)).rows)
    await attempt(`relay.${name}`, async () => {
      await client.query(`alter table relay.${quoteIdentifier(name)} disable row level security`)
      return true
    })
  await attempt("", async () => {
    const { rows } = await client.query<{ oid: string; name: string }>(PROBLEMS)
    for (const { oid, name } of rows)
      await attempt(name, async () => {
        const found = await client.query<{ problem: string | null }>(
          "select relay.mend($1::oid) as problem",
          [oid],
        )
        return found.rows[0]?.problem !== null
      })
    return false
  })
  await client.query("reset lock_timeout")
  return mended
}
