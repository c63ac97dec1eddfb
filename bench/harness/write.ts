/** What is written, everywhere the same: entries of votes. */

import type pg from "pg"

/** Inserts so many rows in one transaction. Resolves when the commit has been answered. @param mark stands in each row. */
export async function insert(session: pg.Client, table: string, rows: number, mark = "bench"): Promise<void> {
  await session.query({
    name: `insert ${table}`,
    text: `insert into ${table} (election_id, committee_id, votes, entered_by) select 1, 1 + g % 12, g, $2 from generate_series(1, $1::int) g`,
    values: [rows, mark],
  })
}
