/** Statements that hold together or not at all. */

import type pg from "pg"

/**
 * Runs statements in one transaction, and takes them back where one fails.
 * @param begin how it begins, with what is set for it alone.
 * @throws what the work throws.
 */
export async function inTransaction<T>(
  client: pg.Client,
  work: () => Promise<T>,
  begin = "begin",
): Promise<T> {
  await client.query(begin)
  try {
    const result = await work()
    await client.query("commit")
    return result
  } catch (error) {
    await client.query("rollback")
    throw error
  }
}
