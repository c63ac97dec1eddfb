/** Damage: what is missing of an installed schema, such as after a dump of a part of it was restored. */

import type pg from "pg"
import { LOCK_TIMEOUT } from "./locks.ts"
import type { Migration } from "./migrations.ts"

export interface Part {
  kind: "relation" | "function"
  name: string
}

const SLOTS = [0, 1, 2]
const MADE =
  /(create|drop) (?:or replace |if exists )?(?:unlogged )?(table|view|sequence|function) (?:if exists )?relay\.(\w+)/g

/** All that the migrations make. */
export function partsOf(migrations: readonly Migration[]): Part[] {
  const parts = new Map<string, Part>()
  for (const { sql } of migrations)
    for (const [, verb, what, stem = ""] of sql.matchAll(MADE))
      for (const name of stem === "change_" ? SLOTS.map((slot) => `${stem}${slot}`) : [stem]) {
        const kind = what === "function" ? "function" : "relation"
        if (verb === "create") parts.set(`${kind} ${name}`, { kind, name })
        else parts.delete(`${kind} ${name}`)
      }
  return [...parts.values()]
}

const MISSING = `
  select p.name from unnest($1::text[], $2::text[]) with ordinality p(kind, name, place), pg_namespace n
  where n.nspname = 'relay' and not case p.kind
    when 'function' then exists (select from pg_proc f where f.pronamespace = n.oid and f.proname = p.name)
    else exists (select from pg_class c where c.relnamespace = n.oid and c.relname = p.name) end
  order by p.place`

/** Rows without which the rest cannot be read. */
const EMPTY = `
  select 'the row of relay.horizon' as part where not exists (select from relay.horizon)
    and not (select relrowsecurity from pg_class where oid = 'relay.horizon'::regclass)
  union all select 'rows of relay.what' where exists (
    select from relay.tracking t where not exists (select from relay.what w where w.id = t.what))`

/** Restored by a superuser who lacks the role that owned it: what runs with its owner's rights must not have his. */
const OWNER = `
  select 'an owner who is no superuser' as part
  from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'relay' and r.rolsuper`

/**
 * @param migrations those that were applied, as far as this program knows them.
 * @returns what is missing of the schema, in words; nothing where it is whole, or newer than that.
 */
export async function findDamage(client: pg.Client, migrations: readonly Migration[]): Promise<string[]> {
  const noted = await allowed(
    client.query<{ latest: number | null }>("select max(version) as latest from relay.migration"),
  )
  const latest = noted?.rows[0]?.latest ?? 0
  if (latest > (migrations.at(-1)?.version ?? 0)) return []
  const parts = partsOf(migrations)
  const missing = await client.query<{ name: string }>(MISSING, [
    parts.map(({ kind }) => kind),
    parts.map(({ name }) => name),
  ])
  if (missing.rows.length > 0) return missing.rows.map(({ name }) => `relay.${name}`)
  if (noted !== undefined && latest === 0) return ["the rows of relay.migration"]
  await client.query(`set lock_timeout = '${LOCK_TIMEOUT}'`)
  const found = await allowed(client.query<{ part: string }>(`${EMPTY} union all ${OWNER}`))
  await client.query("reset lock_timeout")
  return found?.rows.map(({ part }) => part) ?? []
}

/** Of a schema of which it is not known what was applied, all is expected. */
export const appliedOf = (migrations: readonly Migration[], version: number): Migration[] =>
  migrations.filter((migration) => version === 0 || migration.version <= version)

/** The role may not look (insufficient_privilege), there is nothing to look at (undefined_table), or it is locked. */
const UNKNOWN = new Set(["42501", "42P01", "55P03"])

const allowed = <T>(query: Promise<T>): Promise<T | undefined> =>
  query.catch((error: Error & { code?: string }) => {
    if (!UNKNOWN.has(error.code ?? "")) throw error
    return undefined
  })
