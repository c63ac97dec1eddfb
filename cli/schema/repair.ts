/** Repair: a damaged schema is made anew, and captures again what it captured, as far as that is still known. */

import type pg from "pg"
import { z } from "zod"
import { invocation } from "../invocation.ts"
import { quoteIdentifier } from "./database.ts"
import { LOCK_TIMEOUT, retryLocks } from "./locks.ts"
import { warningsOf } from "./track.ts"

const Json = z.record(z.string(), z.unknown())
const Table = z.looseObject({
  name: z.string(),
  target: z.coerce.string(),
  type: z.string(),
  columns: z.array(z.looseObject({ name: z.string() })),
  excluded: z.array(z.string()).default([]),
  key: z.array(z.string()),
  scope: Json,
  restricted: Json.default({}),
  level: z.string().default("row"),
  max_bytes: z.number().optional(),
})
type Table = z.infer<typeof Table>

/** What is still known. */
export interface Saved {
  tables: Table[]
  /** Tables with triggers of the capture, of which nothing else is known. */
  unknown: string[]
  /** Rows of the tables that are neither the log nor the tracking. */
  rows: Array<{ table: string; rows: Record<string, unknown>[] }>
  admitted: Array<{ role: string; by: string }>
}

const KEPT = ["revocation", "derived"]
/** Each way to admit a role, and something that it alone grants. */
const ADMISSIONS = [
  ["admit_relay", "relation", "horizon"],
  ["admit_relay", "relation", "lineage"],
  ["admit_publisher", "function", "broadcast"],
  ["admit_revoker", "function", "revoke"],
] as const

const GRANTED = `
  select distinct g.grantee::regrole::text as role
  from (select c.relname as name, 'relation' as kind, c.relacl as acl from pg_class c where c.relnamespace = 'relay'::regnamespace
        union all select p.proname, 'function', p.proacl from pg_proc p where p.pronamespace = 'relay'::regnamespace) o,
       lateral aclexplode(o.acl) g
  where o.name = $1 and o.kind = $2 and g.grantee <> 0
    and g.grantee <> (select nspowner from pg_namespace where nspname = 'relay')`

const TRIGGERED = `
  select distinct format('%I.%I', n.nspname, c.relname) as name
  from pg_trigger g join pg_proc p on p.oid = g.tgfoid join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
  where p.pronamespace = 'relay'::regnamespace and g.tgparentid = 0 and not c.relispartition
  order by 1`

const rowsOf = async (client: pg.Client, table: string): Promise<Record<string, unknown>[]> => {
  const there = await client.query("select where to_regclass($1) is not null", [`relay.${table}`])
  if (there.rowCount === 0) return []
  const { rows } = await client.query<{ row: Record<string, unknown> }>(
    `select to_jsonb(t) as row from relay.${table} t`,
  )
  return rows.map(({ row }) => row)
}

/** Reads what a damaged schema still knows. */
export async function save(client: pg.Client): Promise<Saved> {
  const there = await client.query("select where to_regclass('relay.tracking') is not null")
  const { rows } =
    there.rowCount === 0
      ? { rows: [] }
      : await client.query<{ row: unknown }>(
          "select to_jsonb(t) || jsonb_build_object('target', t.target::oid::text) as row from relay.tracking t order by id",
        )
  const tables = rows.map(({ row }) => Table.parse(row))
  const triggered = await client.query<{ name: string }>(TRIGGERED)
  const admitted: Saved["admitted"] = []
  for (const [by, kind, name] of ADMISSIONS) {
    const found = await client.query<{ role: string }>(GRANTED, [name, kind])
    admitted.push(...found.rows.map(({ role }) => ({ role, by })))
  }
  const kept: Saved["rows"] = []
  for (const table of KEPT) kept.push({ table, rows: await rowsOf(client, table) })
  const known = new Set(tables.map(({ name }) => name))
  const unknown = triggered.rows.map(({ name }) => name).filter((name) => !known.has(name))
  return { tables, unknown, rows: kept, admitted }
}

/** Takes the triggers away, those of one tracking at a time, so that no writer can deadlock with it. */
export async function dropTriggers(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ names: string }>(
    `select string_agg(format('relay.%I()', p.proname), ', ') as names from pg_proc p
     where p.pronamespace = 'relay'::regnamespace and p.prorettype = 'trigger'::regtype
     group by substring(p.proname from '\\d+$')`,
  )
  await client.query(`set client_min_messages = 'error'; set lock_timeout = '${LOCK_TIMEOUT}'`)
  for (const { names } of rows)
    await retryLocks(() => client.query(`drop function if exists ${names} cascade`))
  await client.query("reset client_min_messages; reset lock_timeout")
}

/** What relay.track is to be told: only columns that are there, and no more of them than were captured. */
const PRESENT = `
  with present as (
    select a.attname::text as name, a.attgenerated = 'v' as virtual from pg_attribute a
    where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped)
  select array(select name from present where name = any($3::text[])) as excluded,
         case when exists (select from present where not virtual and name <> all($2::text[]) and name <> all($3::text[]))
              then array(select name from present where name = any($2::text[])) end as columns`

/** Into the schema that was made anew. @returns the tables that are captured again, and what could not be had again. */
export async function recall(
  client: pg.Client,
  saved: Saved,
): Promise<{ tracked: string[]; warnings: string[] }> {
  const tracked: string[] = []
  const warnings = warningsOf(client)
  for (const { role, by } of saved.admitted)
    await client.query(`select relay.${by}($1::regrole::oid::regrole::text::name)`, [role])
  for (const { table, rows } of saved.rows)
    await client.query(
      `insert into relay.${table} select * from jsonb_populate_recordset(null::relay.${table}, $1) on conflict do nothing`,
      [JSON.stringify(rows)],
    )
  await client.query(`set lock_timeout = '${LOCK_TIMEOUT}'`)
  for (const table of saved.tables) {
    try {
      await retryLocks(() => trackAgain(client, table))
      tracked.push(table.name)
    } catch (error) {
      warnings.add(
        `${table.name} is not captured any more (${(error as Error).message}): ${invocation(`track ${table.name}`)}, with all its options`,
      )
    }
  }
  for (const name of saved.unknown)
    warnings.add(
      `${name} was captured, and it is not known any more how, nor what was left out: ${invocation(`track ${name}`)}, with all its options`,
    )
  return { tracked, warnings: [...warnings] }
}

async function trackAgain(client: pg.Client, table: Table): Promise<void> {
  const { type, key, scope, restricted, level, max_bytes } = table
  const found = await client.query<{ oid: string | null }>(
    "select coalesce((select c.oid from pg_class c where c.oid = $1::oid), to_regclass($2)::oid)::text as oid",
    [table.target, table.name],
  )
  const oid = found.rows[0]?.oid ?? null
  if (oid === null) throw new Error("it is not there")
  const names = table.columns.map(({ name }) => name)
  const { rows } = await client.query<{ excluded: string[]; columns: string[] | null }>(PRESENT, [
    oid,
    names,
    table.excluded,
  ])
  const { excluded: exclude, columns } = rows[0] ?? { excluded: [], columns: null }
  const options = { type, channels: scope, columns, exclude, key, level, restricted, max_bytes }
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null)
  const named = given.map(([name], index) => `, ${quoteIdentifier(name)} => $${index + 2}`).join("")
  await client.query(`select relay.track($1::regclass${named})`, [oid, ...given.map(([, value]) => value)])
}
