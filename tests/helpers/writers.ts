/** Several sessions that write votes at the same time, as an application does. */

import type { Test } from "tap"
import type { Database } from "./database.ts"

export interface Writers {
  /** Statements so far. */
  written(): number
  stop(): Promise<void>
}

/** Each inserts, updates what it inserted, and deletes some of it, in transactions of one to five statements. */
export async function startWriters(t: Test, db: Pick<Database, "session">, count: number): Promise<Writers> {
  let stopped = false
  let statements = 0
  async function write(number: number): Promise<void> {
    const session = await db.session()
    for (let n = 0; !stopped; n++) {
      const inserted = await session.query<{ id: string }>(
        "insert into vote (committee_id, votes) select $1, n from generate_series(1, $2) n returning id",
        [number, 1 + (n % 5)],
      )
      const ids = inserted.rows.map(({ id }) => id)
      await session.query("begin")
      await session.query("update vote set votes = votes + 100 where id = any($1)", [ids])
      if (n % 3 === 0) await session.query("delete from vote where id = $1", [ids[0]])
      if (n % 7 === 0) {
        await session.query("savepoint s")
        await session.query("delete from vote where committee_id = $1", [number])
        await session.query("rollback to savepoint s")
      }
      await session.query(n % 11 === 0 ? "rollback" : "commit")
      statements += 4
    }
  }
  const running = Promise.all(Array.from({ length: count }, (_, number) => write(number + 1)))
  const stop = async () => {
    stopped = true
    await running
  }
  t.teardown(stop)
  return { written: () => statements, stop }
}
