/** Puts tables under capture, and takes them out again. */

import pg from "pg"
import { ConfigError } from "../../relay/config.ts"
import { connect, quoteIdentifier } from "./database.ts"
import { requireInstalled } from "./installed.ts"
import { LOCK_TIMEOUT, retryLocks } from "./locks.ts"
import { dropStrays } from "./strays.ts"
import { inTransaction } from "./transaction.ts"
import { requireTable } from "./usual-path.ts"

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
    const oid = await requireTable(client, table)
    await inTransaction(client, async () => {
      await dropStrays(client, oid)
      await client.query(`select relay.track($1::regclass${named})`, [
        oid,
        ...given.map(([, value]) => value),
      ])
    })
    return [...warnings]
  })
}

/** Ends the capture of one table. @returns whether it was captured. */
export async function untrack(databaseUrl: string, table: string): Promise<boolean> {
  return withTable(databaseUrl, async (client) => {
    const oid = await requireTable(client, table)
    return inTransaction(client, async () => {
      const strayed = await dropStrays(client, oid)
      const { rows } = await client.query<{ was: boolean }>("select relay.untrack($1::regclass) as was", [
        oid,
      ])
      return strayed || rows[0]?.was === true
    })
  })
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

/** The server's warnings from now on, each with its hint. */
export function warningsOf(client: pg.Client): Set<string> {
  const warnings = new Set<string>()
  client.on("notice", ({ severity, message, hint }) => {
    if (severity === "WARNING") warnings.add(hint === undefined ? `${message}` : `${message}. ${hint}`)
  })
  return warnings
}
