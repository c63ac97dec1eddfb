/** Installs capture into a database, upgrades it, and takes it out again. */

import pg from "pg"
import { ConfigError } from "../../relay/config.ts"
import { connect, quoteIdentifier } from "./database.ts"
import { applySql, type Migration, readMigrations } from "./migrations.ts"

export interface Installed {
  state: "installed" | "upgraded" | "present"
  version: number
  /** The tables that were put under capture just now. */
  tracked: string[]
  /** Tables that could not be, each with what to do, and what PostgreSQL has to say of those that were. */
  warnings: string[]
}

/** The tables that are captured from the first installation on, where they exist. */
const DEFAULT_TABLES = ["guarantee", "attendance", "vote"]
/**
 * How long a lock may be waited for, with writers queueing behind it. Well below deadlock_timeout (1 s): two tables are
 * locked one after the other, and it must be the installer that gives up, never a writer.
 */
const LOCK_TIMEOUT = "100ms"
const LOCK_ATTEMPTS = 60

/**
 * Brings the database to this version's schema. Takes no locks if it is there already. Safe to run twice, and at once.
 * @throws ConfigError if the role may not, the schema is newer, or PostgreSQL is too old; the message says what to do.
 */
export async function install(databaseUrl: string): Promise<Installed> {
  const client = await connect(databaseUrl)
  try {
    const migrations = await readMigrations()
    const latest = migrations.at(-1)?.version ?? 0
    const before = await installedVersion(client, migrations)
    if (before === latest) {
      await renew(client)
      return { state: "present", version: latest, tracked: [], warnings: [] }
    }
    if (before === 0) await requireCreate(client)
    await retryLocks(() => migrate(client, migrations))
    if (before > 0) return { state: "upgraded", version: latest, tracked: [], warnings: [] }
    const done = await trackDefaults(client)
    await defineDefaults(client)
    // Whoever has loaded its state meanwhile does not know what was written before the tables were under capture.
    await client.query("select relay.begin_lineage()")
    return { state: "installed", version: latest, ...done }
  } finally {
    await client.end()
  }
}

/** Removes the schema, every trigger, and the owner role if nothing else uses it. @returns false if it was not there. */
export async function uninstall(databaseUrl: string): Promise<boolean> {
  const client = await connect(databaseUrl)
  try {
    const found = await client.query<{ owner: string }>(
      "select nspowner::regrole::text as owner from pg_namespace where nspname = 'relay'",
    )
    const owner = found.rows[0]?.owner
    if (owner === undefined) return false
    await isInstalled(client)
    await untrackAll(client)
    await retryLocks(
      async () => {
        await client.query(
          `begin; set local client_min_messages = 'error'; set local lock_timeout = '${LOCK_TIMEOUT}'; drop schema relay cascade; commit`,
        )
      },
      () => client.query("rollback"),
    )
    if (/^relay_owner_\d+$/.test(owner)) await dropOwner(client, owner)
    return true
  } finally {
    await client.end()
  }
}

/** One table at a time, so that no two locks are ever held together and no writer can deadlock with it. */
async function untrackAll(client: pg.Client): Promise<void> {
  await client.query(`set lock_timeout = '${LOCK_TIMEOUT}'`)
  const tables = await client.query<{ oid: string }>("select target::oid::text as oid from relay.tracking")
  for (const { oid } of tables.rows)
    await retryLocks(() => client.query("select relay.untrack($1::oid::regclass)", [oid]))
}

/** Puts one table under capture; `options` are relay.track's named arguments. @returns the server's warnings. */
export async function track(
  databaseUrl: string,
  table: string,
  options: Record<string, string | string[] | undefined>,
): Promise<string[]> {
  const given = Object.entries(options).filter(
    (entry): entry is [string, string | string[]] => entry[1] !== undefined,
  )
  const named = given.map(([name], index) => `, ${quoteIdentifier(name)} => $${index + 2}`).join("")
  return withTable(databaseUrl, async (client) => {
    const warnings = warningsOf(client)
    await client.query(`select relay.track($1::regclass${named})`, [
      table,
      ...given.map(([, value]) => value),
    ])
    return [...warnings]
  })
}

/** Ends the capture of one table. @returns whether it was captured. */
export async function untrack(databaseUrl: string, table: string): Promise<boolean> {
  const result = await withTable(databaseUrl, (client) =>
    client.query<{ was: boolean }>("select relay.untrack($1::regclass) as was", [table]),
  )
  return result.rows[0]?.was === true
}

async function withTable<T>(databaseUrl: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(databaseUrl)
  try {
    await requireInstalled(client)
    await client.query(`set lock_timeout = '${LOCK_TIMEOUT}'`)
    return await retryLocks(() => work(client))
  } catch (error) {
    throw explainRefusal(error)
  } finally {
    await client.end()
  }
}

/** What PostgreSQL refuses because of what was asked (classes 22 and 42), with its hint. */
function explainRefusal(error: unknown): unknown {
  if (!(error instanceof pg.DatabaseError) || !/^(22|42)/.test(error.code ?? "")) return error
  const hint = error.code === "42501" ? "as its owner: grant trigger on that table to this role" : error.hint
  return new ConfigError(hint === undefined ? error.message : `${error.message}: ${hint}`, { cause: error })
}

async function requireInstalled(client: pg.Client): Promise<void> {
  if (await isInstalled(client)) return
  throw new ConfigError("relay is not installed in this database: run commitcast install first")
}

/** Whether the schema is there. Asked of the tables of the catalog: to_regclass may answer from a cache of before a lock. */
async function isInstalled(client: pg.Client): Promise<boolean> {
  const found = await client.query<{ ours: boolean }>(
    `select exists (select 1 from pg_class c where c.relnamespace = n.oid and c.relname = 'migration') as ours
     from pg_namespace n where n.nspname = 'relay'`,
  )
  if (found.rows[0]?.ours === false)
    throw new ConfigError("the database has a schema named relay that is not CommitCast's: rename it")
  return found.rows.length > 0
}

/**
 * The last migration that is there and known; 0: none is. One that is not known is no matter where it says that it runs beside
 * this program.
 * @throws ConfigError where the schema is newer than that, differs, or cannot be seen.
 */
export async function installedVersion(client: pg.Client, migrations: Migration[]): Promise<number> {
  if (!(await isInstalled(client))) return 0
  const rows = await client
    .query<{ version: number; hash: string; name: string; oldest: number | null }>(
      "select version, hash, name, (to_jsonb(m) ->> 'oldest')::int as oldest from relay.migration m order by version",
    )
    .catch((error: Error & { code?: string }) => {
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

async function requireCreate(client: pg.Client): Promise<void> {
  const may = await client.query<{ may: boolean; role: string; database: string }>(
    "select has_database_privilege(current_database(), 'create') as may, current_user as role, current_database() as database",
  )
  const { may: allowed, role, database } = may.rows[0] as { may: boolean; role: string; database: string }
  if (allowed) return
  throw new ConfigError(
    `the role ${role} may not create a schema in ${database}. As its owner or a superuser run one of:\n` +
      `  grant create on database ${quoteIdentifier(database)} to ${quoteIdentifier(role)};   and start again\n` +
      `  commitcast sql | psql -d ${database}   and then, in psql: select relay.admit_relay('${role}')`,
  )
}

async function migrate(client: pg.Client, migrations: Migration[]): Promise<void> {
  try {
    // Taken before anything is looked at, so that of two installers the second finds the work done.
    await client.query(`begin; set local lock_timeout = '${LOCK_TIMEOUT}'`)
    await client.query("select pg_advisory_xact_lock(hashtext('commitcast install'))")
    const done = await installedVersion(client, migrations)
    if (done > 0) await becomeOwner(client, done)
    for (const migration of migrations) if (migration.version > done) await client.query(applySql(migration))
    await client.query("commit")
  } catch (error) {
    await client.query("rollback")
    throw error
  }
}

/** For the rest of the transaction. @throws ConfigError where the role may not. */
async function becomeOwner(client: pg.Client, version: number): Promise<void> {
  const owners = await client.query<{ owner: string; may: boolean }>(
    `select nspowner::regrole::text as owner, pg_has_role(nspowner, 'member') as may
     from pg_namespace where nspname = 'relay'`,
  )
  const { owner, may } = owners.rows[0] as { owner: string; may: boolean }
  if (!may)
    throw new ConfigError(
      `the database's relay schema is of version ${version}, older than this program, and this role may not upgrade it. As ${owner} or a superuser run one of:\n` +
        `  commitcast install\n  commitcast sql --from ${version} | psql -d ${client.database}`,
    )
  await client.query("select set_config('role', $1, true)", [owner])
}

/** The server's warnings from now on, each with its hint. */
function warningsOf(client: pg.Client): Set<string> {
  const warnings = new Set<string>()
  client.on("notice", ({ severity, message, hint }) => {
    if (severity === "WARNING") warnings.add(hint === undefined ? `${message}` : `${message}. ${hint}`)
  })
  return warnings
}

async function trackDefaults(client: pg.Client): Promise<Pick<Installed, "tracked" | "warnings">> {
  const tracked: string[] = []
  const warnings = warningsOf(client)
  await client.query(`set lock_timeout = '${LOCK_TIMEOUT}'`)
  for (const table of DEFAULT_TABLES) {
    const there = await client.query("select to_regclass($1) as there", [table])
    if (there.rows[0]?.there === null) continue
    try {
      await retryLocks(() => client.query("select relay.track($1::regclass)", [table]))
      tracked.push(table)
    } catch (error) {
      warnings.add(`${table} is not captured (${(error as Error).message}): commitcast track ${table}`)
    }
  }
  return { tracked, warnings: [...warnings] }
}

/** What is derived from the demo's tables, where its functions are. */
async function defineDefaults(client: pg.Client): Promise<void> {
  await client.query(`
    select relay.define_derived(d.type, d.function::regproc, d.tables::regclass[], d.channel, action => d.action)
    from (values ('dashboard_update', 'dashboard_statistics', '{guarantee,attendance,vote}'::text[], 'dashboard', null),
                 ('voting_update', 'election_results', '{vote}', 'election', 'results')) d(type, function, tables, channel, action)
    where to_regproc(d.function) is not null
      and not exists (select from unnest(d.tables) n where not exists (
        select from relay.tracking t where t.target = to_regclass(n)))`)
}

/** After a restore from a dump the capture is right but slow, until its owner makes its code anew. */
async function renew(client: pg.Client): Promise<void> {
  await client.query("select relay.renew()").catch((error: Error & { code?: string }) => {
    if (error.code !== "42501") throw error
  })
}

async function dropOwner(client: pg.Client, owner: string): Promise<void> {
  await client.query(`drop role ${quoteIdentifier(owner)}`).catch((error: Error & { code?: string }) => {
    // A copy of this database still has objects of the role.
    if (error.code !== "2BP01") throw error
  })
}

async function retryLocks<T>(
  work: () => Promise<T>,
  recover: () => Promise<unknown> = async () => {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      await recover()
      const code = (error as { code?: string }).code
      if (code !== "55P03" && code !== "40P01") throw error
      if (attempt === LOCK_ATTEMPTS)
        throw new ConfigError(
          "a table could not be locked: some transaction holds it all the time; try again later",
          { cause: error },
        )
      await new Promise((resolve) => setTimeout(resolve, 50 + Math.random() * 400))
    }
  }
}
