/** Installs capture into a database, upgrades it, and takes it out again. */

import type pg from "pg"
import { ConfigError } from "../../relay/config.ts"
import { invocation } from "../invocation.ts"
import { appliedOf, findDamage } from "./damage.ts"
import { connect, quoteIdentifier } from "./database.ts"
import { installedVersion, isInstalled } from "./installed.ts"
import { LOCK_TIMEOUT, retryLocks } from "./locks.ts"
import { mend } from "./mend.ts"
import { applySql, type Migration, readMigrations } from "./migrations.ts"
import { dropTriggers, recall, save } from "./repair.ts"
import { warningsOf } from "./track.ts"
import { findFunction, findTable, withUsualPath } from "./usual-path.ts"

export interface Installed {
  state: "installed" | "upgraded" | "repaired" | "mended" | "present"
  version: number
  /** The tables that were put under capture just now, or whose capture was mended. */
  tracked: string[]
  /** Tables that could not be, each with what to do, and what PostgreSQL has to say of those that were. */
  warnings: string[]
}

/** The tables that are captured from the first installation on, where they exist. */
const DEFAULT_TABLES = ["guarantee", "attendance", "vote"]
/** What is derived from them, where the functions are. */
const DEFAULT_MESSAGES = [
  {
    type: "dashboard_update",
    name: "dashboard_statistics",
    tables: DEFAULT_TABLES,
    channel: "dashboard",
    action: null,
  },
  {
    type: "voting_update",
    name: "election_results",
    tables: ["vote"],
    channel: "election",
    action: "results",
  },
]

/**
 * Brings the database to this version's schema; one that is damaged is made anew. Takes no locks if it is there already.
 * Safe to run twice, and at once.
 * @param given the migrations of another version than this one.
 * @throws ConfigError if the role may not, the schema is newer, or the database cannot be used; the message says what to do.
 */
export async function install(databaseUrl: string, given?: readonly Migration[]): Promise<Installed> {
  const client = await connect(databaseUrl)
  try {
    const migrations = given ?? (await readMigrations())
    const latest = migrations.at(-1)?.version ?? 0
    await requireEncoding(client)
    const before = await installedVersion(client, migrations)
    if (await isDamaged(client, migrations)) return await repair(client, migrations)
    if (before === latest) {
      await renew(client)
      const mended = await mend(client)
      const state = mended.length > 0 ? "mended" : "present"
      return { state, version: latest, tracked: mended, warnings: [] }
    }
    if (before === 0) await requireCreate(client)
    await retryLocks(() => migrate(client, migrations))
    if (before > 0) return { state: "upgraded", version: latest, tracked: [], warnings: [] }
    const { tracked, warnings } = await trackDefaults(client)
    warnings.push(...(await defineDefaults(client, tracked)))
    // Whoever has loaded its state meanwhile does not know what was written before the tables were under capture.
    await client.query("select relay.begin_lineage()")
    return { state: "installed", version: latest, tracked: [...tracked.keys()], warnings }
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
    await dropTriggers(client)
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

/** Bytes that have no meaning cannot be sent as JSON, which is text. */
async function requireEncoding(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ encoding: string; database: string }>(
    "select current_setting('server_encoding') as encoding, current_database() as database",
  )
  const { encoding, database = "" } = rows[0] ?? {}
  if (encoding !== "SQL_ASCII") return
  throw new ConfigError(
    `the database ${database} has the encoding SQL_ASCII, so that nobody knows which letters its bytes are: make one with an encoding and move the data there, such as by\n` +
      `  createdb --template=template0 --encoding=UTF8 new   and   pg_dump --encoding=UTF8 ${database} | psql -d new`,
  )
}

async function isDamaged(client: pg.Client, migrations: readonly Migration[]): Promise<boolean> {
  if (!(await isInstalled(client))) return false
  const version = await installedVersion(client, migrations)
  return (await findDamage(client, appliedOf(migrations, version))).length > 0
}

async function repair(client: pg.Client, migrations: readonly Migration[]): Promise<Installed> {
  const version = migrations.at(-1)?.version ?? 0
  // Held to the end, so that of two installers the second finds all of it done.
  await client.query("select pg_advisory_lock(hashtext('commitcast install'))")
  if (!(await isDamaged(client, migrations))) return { state: "present", version, tracked: [], warnings: [] }
  await requireOwner(client)
  await requireCreate(client)
  const saved = await save(client)
  await dropTriggers(client)
  await retryLocks(() => migrate(client, migrations, true))
  const { tracked, warnings } = await recall(client, saved)
  await client.query("select relay.begin_lineage()")
  return { state: "repaired", version, tracked, warnings }
}

async function requireOwner(client: pg.Client): Promise<void> {
  const { owner, may } = await ownerOf(client)
  if (!may)
    throw new ConfigError(
      `parts of the relay's schema are missing, and this role may not put it right. As ${owner} or a superuser run:\n  ${invocation("install")}`,
    )
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
      `  ${invocation("sql")} | psql -d ${database}   and then, in psql: select relay.admit_relay('${role}')`,
  )
}

async function migrate(client: pg.Client, migrations: readonly Migration[], anew = false): Promise<void> {
  try {
    // Taken before anything is looked at, so that of two installers the second finds the work done.
    await client.query(`begin; set local lock_timeout = '${LOCK_TIMEOUT}'`)
    await client.query("select pg_advisory_xact_lock(hashtext('commitcast install'))")
    if (anew) await dropSchema(client)
    const done = await installedVersion(client, migrations)
    if (done > 0) await becomeOwner(client, done)
    for (const migration of migrations) if (migration.version > done) await client.query(applySql(migration))
    await client.query("commit")
  } catch (error) {
    await client.query("rollback")
    throw error
  }
}

/** What is made next belongs to the same owner, where that may be. */
async function dropSchema(client: pg.Client): Promise<void> {
  const { owner, creates } = await ownerOf(client)
  await client.query("set local client_min_messages = 'error'; drop schema relay cascade")
  if (creates) await client.query("select set_config('role', $1, true)", [owner])
}

/** For the rest of the transaction. @throws ConfigError where the role may not. */
async function becomeOwner(client: pg.Client, version: number): Promise<void> {
  const { owner, may } = await ownerOf(client)
  if (!may)
    throw new ConfigError(
      `the database's relay schema is of version ${version}, older than this program, and this role may not upgrade it. As ${owner} or a superuser run one of:\n` +
        `  ${invocation("install")}\n  ${invocation(`sql --from ${version}`)} | psql -d ${client.database}`,
    )
  await client.query("select set_config('role', $1, true)", [owner])
}

interface Owner {
  owner: string
  /** Whether this role may do what the owner may. */
  may: boolean
  /** Whether the owner may make a schema, and is no superuser. */
  creates: boolean
}

async function ownerOf(client: pg.Client): Promise<Owner> {
  const { rows } = await client.query<Owner>(
    `select r.rolname::text as owner, pg_has_role(r.oid, 'member') as may,
            not r.rolsuper and has_database_privilege(r.oid, current_database(), 'create') as creates
     from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'relay'`,
  )
  return rows[0] as Owner
}

/** @returns the tables that were put under capture, each with its oid. */
async function trackDefaults(
  client: pg.Client,
): Promise<{ tracked: Map<string, string>; warnings: string[] }> {
  const tracked = new Map<string, string>()
  const warnings = warningsOf(client)
  await client.query(`set lock_timeout = '${LOCK_TIMEOUT}'`)
  for (const table of DEFAULT_TABLES) {
    const oid = await findTable(client, table)
    if (oid === undefined) continue
    try {
      await retryLocks(() => client.query("select relay.track($1::regclass)", [oid]))
      tracked.set(table, oid)
    } catch (error) {
      warnings.add(`${table} is not captured (${(error as Error).message}): ${invocation(`track ${table}`)}`)
    }
  }
  return { tracked, warnings: [...warnings] }
}

const DEFINE = `
  select relay.define_derived($1::pg_catalog.text, $2::pg_catalog.regproc, $3::pg_catalog.regclass[],
    $4::pg_catalog.text, action => $5::pg_catalog.text)`

/** @returns what could not be, each with what PostgreSQL says. */
async function defineDefaults(client: pg.Client, tracked: ReadonlyMap<string, string>): Promise<string[]> {
  const warnings: string[] = []
  for (const { type, name, tables, channel, action } of DEFAULT_MESSAGES) {
    const oid = await findFunction(client, name)
    const oids = tables.map((table) => tracked.get(table))
    if (oid === undefined || oids.includes(undefined)) continue
    try {
      // It runs the application's function once.
      await withUsualPath(client, () => client.query(DEFINE, [type, oid, oids, channel, action]))
    } catch (error) {
      warnings.push(`${name}() is not derived from (${(error as Error).message}): relay.define_derived`)
    }
  }
  return warnings
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
