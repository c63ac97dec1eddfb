/** What the watch of the tables says and mends, as SQL tests want to see it. */

import type { Database } from "./database.ts"
import { readLog } from "./log.ts"

/** The problem of a table, or null. */
export async function problemOf(db: Pick<Database, "query">, name: string): Promise<string | null> {
  const rows = await db.query<{ problem: string | null }>(
    "select problem from relay.tracked where name = $1",
    [`public.${name}`],
  )
  if (rows.length !== 1) throw new Error(`${name} is tracked ${rows.length} times`)
  return rows[0]?.problem ?? null
}

/** The names of the tables that were found to have changed. */
export const watch = async (db: Pick<Database, "query">): Promise<string[]> =>
  (await db.query<{ name: string }>("select name from relay.watch()")).map(({ name }) =>
    name.replace("public.", ""),
  )

/** What was wrong with a table and was mended, or null. */
export const mend = async (db: Pick<Database, "query">, name: string): Promise<string | null> =>
  (await db.query<{ it: string | null }>("select relay.mend($1::regclass) as it", [name]))[0]?.it ?? null

/** The statement that a problem gives as its remedy. */
export const remedyOf = (problem: string | null): string =>
  /(?:select|drop) .+$/s.exec(problem ?? "")?.[0] ?? ""

/** Does something. @returns what it left in the log: the table, the operation and what it says beside its rows. */
export async function logged(db: Pick<Database, "query">, work: () => Promise<unknown>): Promise<string[]> {
  const before = (await readLog(db)).length
  await work()
  return (await readLog(db)).slice(before).map(({ table, op, meta }) => {
    const more = meta.partition ?? meta.op
    return [table?.replace("public.", ""), op, ...(more === undefined ? [] : [more])].join(" ")
  })
}
