/** What is installed: whether the schema is there, and of which version. */

import type pg from "pg"
import { ConfigError } from "../../relay/config.ts"
import { invocation } from "../invocation.ts"
import type { Migration } from "./migrations.ts"

export async function requireInstalled(client: pg.Client): Promise<void> {
  if (await isInstalled(client)) return
  throw new ConfigError(`relay is not installed in this database: run ${invocation("install")} first`)
}

/**
 * Whether the schema is there, be it damaged. Asked of the tables of the catalog: to_regclass may answer from a cache of
 * before a lock.
 * @throws ConfigError where it is somebody else's.
 */
export async function isInstalled(client: pg.Client): Promise<boolean> {
  const found = await client.query<{ ours: boolean }>(
    `select exists (select from pg_class c where c.relnamespace = n.oid and c.relname in ('migration', 'tracking'))
         or exists (select from pg_proc p where p.pronamespace = n.oid and p.proname = 'meet_lineage') as ours
     from pg_namespace n where n.nspname = 'relay'`,
  )
  if (found.rows[0]?.ours === false)
    throw new ConfigError("the database has a schema named relay that is not CommitCast's: rename it")
  return found.rows.length > 0
}

/**
 * The last migration that is there and known; 0: none is, or none is noted in a damaged schema. One that is not known is no matter where it says that it runs beside
 * this program.
 * @throws ConfigError where the schema is newer than that, differs, or cannot be seen.
 */
export async function installedVersion(client: pg.Client, migrations: readonly Migration[]): Promise<number> {
  if (!(await isInstalled(client))) return 0
  const rows = await client
    .query<{ version: number; hash: string; name: string; oldest: number | null }>(
      "select version, hash, name, (to_jsonb(m) ->> 'oldest')::int as oldest from relay.migration m order by version",
    )
    .catch((error: Error & { code?: string }) => {
      // Undefined table: a part of the schema was restored.
      if (error.code === "42P01") return { rows: [] }
      if (error.code !== "42501") throw error
      throw new ConfigError(
        "this role may not use the installed relay: as its owner run select relay.admit_relay('the role')",
      )
    })
  const latest = migrations.at(-1)?.version ?? 0
  const known = new Map(migrations.map((migration) => [migration.version, migration.hash]))
  for (const { version, hash, name, oldest } of rows.rows) {
    if (version > latest && oldest !== null && oldest <= latest) continue
    if (!known.has(version))
      throw new ConfigError(
        `the database's relay schema is newer (${name}) than this program: update CommitCast`,
      )
    if (known.get(version) !== hash)
      throw new ConfigError(
        `the database's relay schema differs from this program's (${name}): use the program that installed it`,
      )
  }
  return Math.max(0, ...rows.rows.map(({ version }) => Math.min(version, latest)))
}
