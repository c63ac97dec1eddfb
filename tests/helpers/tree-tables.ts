/** The tracked tables of a schema as the trees model compares them. */

import type pg from "pg"
import type { Rows } from "./tree-follower.ts"
import type { TablePlan } from "./tree-schema.ts"

export interface Tracked {
  readonly name: string
  readonly key: readonly string[]
  /** The captured columns that are still there. */
  readonly columns: readonly string[]
}

export async function trackedTables(session: pg.Client, schema: string): Promise<Tracked[]> {
  const { rows } = await session.query<Tracked>(
    `select name, key, array(
       select attname::text from pg_attribute where attrelid = target and attnum > 0 and not attisdropped and attname = any(columns)) as columns
     from relay.tracked where name like $1 order by name`,
    [`${schema}.%`],
  )
  return rows
}

/** What is wrong with the capture of which tables. */
export async function problemsOf(
  session: pg.Client,
  schema: string,
): Promise<Array<{ name: string; problem: string }>> {
  const { rows } = await session.query<{ name: string; problem: string | null }>(
    "select name, problem from relay.tracked where name like $1 order by name",
    [`${schema}.%`],
  )
  return rows.flatMap(({ name, problem }) => (problem === null ? [] : [{ name, problem }]))
}

/** The rows of a table with the columns and the keys that clients have. */
export async function readRows(
  session: pg.Client,
  { name, key, columns }: Tracked,
  { shape }: TablePlan,
): Promise<Rows> {
  const { rows } = await session.query<{ row: Record<string, unknown> }>(
    `select row_to_json(r) as row from (select ${columns.join()} from ${shape === "inherited" ? "only" : ""} ${name}) r`,
  )
  const shownAs = (row: Record<string, unknown>, column: string) =>
    shape === "bigint key" && column === "id" ? String(row[column]) : row[column]
  const keyOf = (row: Record<string, unknown>) =>
    JSON.stringify(Object.fromEntries(key.map((column) => [column, shownAs(row, column)])))
  return new Map(rows.map(({ row }) => [keyOf(row), row]))
}
