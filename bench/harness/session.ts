/** The two tables that are written to, and sessions to do it. */

import pg from "pg"

/** Ours captures this table. */
export const OWN_TABLE = "vote"
/** The rivals hear of this one by a NOTIFY that carries the row. */
export const COPY_TABLE = "plain_vote"
/** Where that NOTIFY goes. */
export const COPY_CHANNEL = "plain_vote"

export async function openSession(databaseUrl: string): Promise<pg.Client> {
  const session = new pg.Client({ connectionString: databaseUrl, application_name: "bench" })
  session.on("error", () => {})
  await session.connect()
  return session
}
