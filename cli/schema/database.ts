/** A connection to the user's database, with errors that say what to do. */

import type pg from "pg"
import { ConfigError, type Settings } from "../../relay/config.ts"
import { BoundClient } from "../../relay/lib/bound-client.ts"
import { type Database, NoServerError, openDatabase } from "../../relay/lib/database.ts"
import { TlsError } from "../../relay/lib/line.ts"
import { PIN, PIN_TRANSACTION } from "../../relay/lib/pinned-client.ts"
import { codeOf, explainRefusal } from "../../relay/lib/refusal.ts"
import { readState } from "../embedded/state.ts"
import { invocation } from "../invocation.ts"

/** The oldest PostgreSQL that has what the capture needs. */
const OLDEST = 140_000

/** The database cannot be reached now, but may be later. */
export class UnreachableError extends Error {
  override name = "UnreachableError"
  /** What to do, where the server itself has said why. */
  readonly remedy: string | undefined

  constructor(message: string, { cause, remedy }: { cause: Error; remedy?: string }) {
    super(message, { cause })
    this.remedy = remedy
  }
}

/**
 * Connects, pins the session, and checks that it is a database to relay from.
 * @throws UnreachableError if there is no answer, ConfigError if trying again cannot help.
 */
export async function connect(databaseUrl: string): Promise<pg.Client> {
  const database = openDatabase(databaseUrl)
  let client: pg.Client | undefined
  try {
    client = await openClient(database, 10_000)
    await check(client, database)
    await client.query(PIN)
    return client
  } catch (error) {
    await client?.end().catch(() => {})
    throw explain(error as Error)
  }
}

async function openClient(database: Database, timeoutMs: number): Promise<pg.Client> {
  const dialled = await database.dial("commitcast")
  const client = new BoundClient({ ...dialled, connectionTimeoutMillis: timeoutMs })
  client.on("error", () => {})
  try {
    await client.connect()
    return client
  } catch (error) {
    await client.end().catch(() => {})
    throw error
  }
}

async function check(client: pg.Client, database: Database): Promise<void> {
  // For this transaction only: a pooler in transaction mode hands the session on to others as it was left.
  await client.query(PIN_TRANSACTION)
  const result = await client.query<{ version: number; name: string; standby: boolean; pid: number }>(
    "select current_setting('server_version_num')::int as version, current_setting('server_version') as name, pg_is_in_recovery() as standby, pg_backend_pid() as pid",
  )
  await client.query("commit")
  const { version, name, standby, pid } = result.rows[0] as {
    version: number
    name: string
    standby: boolean
    pid: number
  }
  if (version < OLDEST)
    throw new ConfigError(`DATABASE_URL: PostgreSQL ${name} is too old: 14 or newer is needed`)
  if (standby)
    throw new ConfigError(
      "DATABASE_URL leads to a standby: NOTIFY does not reach it; use the primary, or target_session_attrs=read-write where several hosts are named",
    )
  if (pid !== (client as unknown as { processID: number }).processID)
    await refuseTransactionPooler(database, client)
}

/**
 * Behind a pooler in transaction mode two open connections can share a server process: LISTEN would be lost silently.
 * The backend's pid is not the one in the greeting wherever a pooler stands between; in session mode that is harmless.
 */
async function refuseTransactionPooler(database: Database, first: pg.Client): Promise<void> {
  const pidOf = async (client: pg.Client) =>
    (await client.query<{ pid: number }>("select pg_catalog.pg_backend_pid() as pid")).rows[0]?.pid
  const pid = await pidOf(first)
  const second = await openClient(database, 5_000)
  try {
    await second.query(PIN_TRANSACTION)
    if ((await pidOf(second)) === pid) {
      throw new ConfigError(
        "DATABASE_URL leads through a pooler in transaction mode, where LISTEN is lost: connect to PostgreSQL directly, or through a pool in session mode",
      )
    }
  } finally {
    await second.end().catch(() => {})
  }
}

const UNREACHABLE = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EAI_AGAIN",
  "ENOTFOUND",
  "57P03",
  "57P01",
  "08006",
])

function explain(error: Error): Error {
  if (error instanceof ConfigError) return error
  const code = codeOf(error)
  const known = explainRefusal(error)
  if (known !== undefined && code?.startsWith("28"))
    return new ConfigError(`DATABASE_URL: ${known.text} (${error.message}): ${known.remedy}`, {
      cause: error,
    })
  if (known !== undefined && /^(53|57)/.test(code ?? ""))
    return new UnreachableError(`${known.text} (${error.message})`, { cause: error, remedy: known.remedy })
  if (code === "28P01" || code === "28000")
    return new ConfigError(`DATABASE_URL: ${error.message}: check user and password`, { cause: error })
  if (code === "3D000")
    return new ConfigError(`DATABASE_URL: ${error.message}: create it first`, { cause: error })
  if (error instanceof NoServerError)
    return new UnreachableError(`no host of DATABASE_URL will do: ${error.message}`, { cause: error })
  if (
    error instanceof TlsError ||
    /SASL|asks for a password|password file|channel_binding/.test(error.message)
  )
    return new ConfigError(`DATABASE_URL: ${error.message}`, { cause: error })
  if ((code !== undefined && UNREACHABLE.has(code)) || /timeout|terminated/i.test(error.message)) {
    return new UnreachableError(`the database does not answer (${code ?? error.message})`, { cause: error })
  }
  return error
}

/**
 * The database that a command means: DATABASE_URL, or the embedded one that is running.
 * @throws ConfigError if there is neither.
 */
export async function findDatabase(
  settings: Pick<Settings, "DATABASE_URL" | "COMMITCAST_DIR">,
): Promise<string> {
  if (settings.DATABASE_URL !== undefined) return settings.DATABASE_URL
  const state = await readState(settings.COMMITCAST_DIR)
  if (state !== undefined) return state.database_url
  throw new ConfigError(
    `DATABASE_URL is not set, and no embedded PostgreSQL runs in ${settings.COMMITCAST_DIR}: set it, or run ${invocation("start")} first`,
  )
}

/** An SQL identifier, quoted. */
export const quoteIdentifier = (name: string): string => `"${name.replaceAll('"', '""')}"`
