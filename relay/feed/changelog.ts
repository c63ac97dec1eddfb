/** The changelog of one database: sessions that read it, and the upkeep that it needs. */

import type pg from "pg"
import { z } from "zod"
import { type Database, openDatabase } from "../lib/database.ts"
import { pinnedPool } from "../lib/pinned-client.ts"
import type { UnreadableRow } from "./entries.ts"
import { QUERY_TIMEOUT_MS } from "./log-connection.ts"
import { openSession, type Session } from "./log-session.ts"
import { SLOTS } from "./queries.ts"

/** A tracked table as relay.tracked shows it. */
export const TrackedTable = z.object({
  name: z.string(),
  type: z.string(),
  level: z.string(),
  problem: z.string().nullable(),
  not_captured: z.array(z.string()),
})
export type TrackedTable = z.infer<typeof TrackedTable>

export interface Changelog {
  readonly database: Database
  /** @throws if the database cannot be reached, or has no relay schema that this version can read. */
  open(): Promise<Session>
  tracked(): Promise<TrackedTable[]>
  /** Whether the capture is paused, and the tables with triggers of a tracking that is gone. */
  oddities(): Promise<{ paused: boolean; strays: string[] }>
  /** Empties the oldest partition if it is time. */
  rotate(retentionHours: number, retentionMb: number): Promise<"done" | "not_due" | "refused">
  /** Makes the code of the tables fast again where it became slow. @returns of how many. */
  renew(): Promise<number>
  /** Has the clients of tables load them again whose trees or triggers have changed. @returns their names. */
  watch(): Promise<string[]>
  /** Mends the capture of a table. @returns what was wrong, or null where there was nothing that this role may mend now. */
  mend(table: string): Promise<string | null>
  /** The size of the log, in bytes. */
  size(): Promise<number>
  /** Writes a row that comes back among the canaries of a read. @returns false if this role may not. */
  writeCanary(canary: string): Promise<boolean>
  close(): Promise<void>
}

const LOG_BYTES = SLOTS.map((slot) => `pg_total_relation_size('relay.change_${slot}'::regclass)`).join(" + ")

const ODDITIES = `
  select coalesce(pg_sequence_last_value('relay.state') >= 8, false) as paused, array(
    select distinct format('%I.%I', n.nspname, c.relname)
    from pg_proc p join pg_trigger g on g.tgfoid = p.oid join pg_class c on c.oid = g.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where p.pronamespace = 'relay'::regnamespace and p.prorettype = 'trigger'::regtype and g.tgparentid = 0
      and not exists (select from relay.tracking t where t.id::text = substring(p.proname from '\\d+$'))
    order by 1) as strays`

const RENEW = "select relay.renew()::int as count"
/** It may not, or the table is in use (lock_not_available, deadlock_detected). */
const NOT_NOW = new Set(["42501", "55P03", "40P01"])

/**
 * Connects to the changelog of one database. @throws ConfigError if it cannot be reached as the connection string asks.
 * @param onUnreadable its sessions have passed over rows.
 */
export function createChangelog(
  connectionString: string,
  onIdleError: (error: Error) => void,
  onUnreadable: (rows: readonly UnreadableRow[]) => void = () => {},
): Changelog {
  const database = openDatabase(connectionString)
  const pool = pinnedPool(database, "commitcast", {
    max: 2,
    query_timeout: QUERY_TIMEOUT_MS,
    connectionTimeoutMillis: QUERY_TIMEOUT_MS,
  })
  pool.on("error", onIdleError)
  return {
    database,
    open: () => openSession({ database, onUnreadable }),
    async tracked() {
      const result = await pool.query({
        text: "select name, type, level, problem, not_captured from relay.tracked order by name",
        query_timeout: 5_000,
      } as pg.QueryConfig)
      return z.array(TrackedTable).parse(result.rows)
    },
    async oddities() {
      const { rows } = await pool.query<{ paused: boolean; strays: string[] }>(ODDITIES)
      return rows[0] ?? { paused: false, strays: [] }
    },
    async rotate(retentionHours, retentionMb) {
      const client = await pool.connect()
      // The running query rejects. Without a handler the same error would end the process: the pool handles idle clients only.
      const ignore = () => {}
      client.on("error", ignore)
      try {
        // The database's default may be another.
        await client.query("begin isolation level read committed")
        // Two partitions are always kept whole, so each covers half of the time and of the size.
        const result = await client.query<{ slot: number | null }>(
          "select relay.rotate(make_interval(secs => $1), $2) as slot",
          [(retentionHours * 3_600) / 2, Math.ceil((retentionMb * 1_048_576) / 2)],
        )
        await client.query("commit")
        const slot = result.rows[0]?.slot ?? null
        // After the commit: before it, writers would turn to a partition that is locked and being emptied.
        if (slot !== null) {
          await client.query("select relay.advance_slot($1::smallint)", [slot])
          // At once: the code that fills the one before is slow by now.
          await client.query(RENEW)
        }
        client.release()
        return slot === null ? "not_due" : "done"
      } catch (error) {
        if ((error as { code?: string }).code === "55P03") {
          // The error comes before its transaction has ended, and the next attempt would find this one still at work.
          await client.query("rollback").then(
            () => client.release(),
            () => client.release(true),
          )
          return "refused"
        }
        client.release(true)
        throw error
      } finally {
        client.off("error", ignore)
      }
    },
    async renew() {
      const { rows } = await pool.query<{ count: number }>(RENEW)
      return rows[0]?.count ?? 0
    },
    async watch() {
      const { rows } = await pool.query<{ name: string }>("select name from relay.watch()")
      return rows.map(({ name }) => name)
    },
    async mend(table) {
      // A superuser has rights that the schema's owner lacks; any other relay has the right to ask in his name.
      for (const way of ["mend_as_owner", "mend"])
        try {
          const { rows } = await pool.query<{ problem: string | null }>(
            `select relay.${way}(target) as problem from relay.tracking where name = $1`,
            [table],
          )
          if (typeof rows[0]?.problem === "string") return rows[0].problem
        } catch (error) {
          if (!NOT_NOW.has((error as { code?: string }).code ?? "")) throw error
        }
      return null
    },
    async size() {
      const { rows } = await pool.query<{ bytes: string }>(`select (${LOG_BYTES})::text as bytes`)
      return Number(rows[0]?.bytes ?? 0)
    },
    async writeCanary(canary) {
      const { rows } = await pool.query<{ may: boolean }>(
        "select has_function_privilege('relay.canary(text)', 'execute') as may",
      )
      if (rows[0]?.may !== true) return false
      await pool.query("select relay.canary($1)", [canary])
      return true
    },
    close: () => pool.end(),
  }
}
