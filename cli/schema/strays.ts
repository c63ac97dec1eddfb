/** Strays: triggers of a tracking that is gone, such as one whose row in relay.tracking was deleted by hand. */

import type pg from "pg"

const STRAYS = `
  select distinct g.tgrelid::text as oid, format('%I.%I', n.nspname, c.relname) as name, substring(p.proname from '\\d+$')::int as id
  from pg_proc p join pg_trigger g on g.tgfoid = p.oid join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
  where p.pronamespace = 'relay'::regnamespace and p.prorettype = 'trigger'::regtype and g.tgparentid = 0
    and not exists (select from relay.tracking t where t.id::text = substring(p.proname from '\\d+$'))
  order by 2`

/** The tables that have some. */
export async function strayTables(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(STRAYS)
  return [...new Set(rows.map(({ name }) => name))]
}

/** Takes those of a table away. @returns whether there were any. */
export async function dropStrays(client: pg.Client, table: string): Promise<boolean> {
  const { rows } = await client.query<{ oid: string; id: number }>(STRAYS)
  const ids = new Set(rows.filter(({ oid }) => oid === table).map(({ id }) => id))
  for (const id of ids) await client.query("select relay.drop_capture($1::int)", [id])
  return ids.size > 0
}
