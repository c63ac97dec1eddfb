/** A database of its own for each test, cloned from a template in the shared servers. */

import { randomBytes } from "node:crypto"
import pg from "pg"
import type { Test } from "tap"
import { install } from "../../cli/schema/install.ts"
import { ADMIN, EMPTY, serverPort, TEMPLATE, urlOf, type Version } from "./servers.ts"

export interface Database {
  name: string
  port: number
  /** As the role that owns the database and the tables, no superuser. */
  url: string
  /** As a role that may only write the tables. */
  writerUrl: string
  superuserUrl: string
  /** One statement, or several without values, as the owner. */
  query<Row extends pg.QueryResultRow = Record<string, unknown>>(
    sql: string,
    values?: unknown[],
  ): Promise<Row[]>
  /** A session of its own, closed with the test. */
  session(url?: string): Promise<pg.Client>
}

/**
 * Makes a database, dropped with the test.
 * @param options.empty without the election schema and without the relay.
 */
export async function database(
  t: Test,
  options: { version?: Version; empty?: boolean } = {},
): Promise<Database> {
  const port = await serverPort(options.version ?? "18")
  const name = `t_${randomBytes(8).toString("hex")}`
  const superuser = await connected(urlOf(port, "postgres", "postgres"))
  await superuser.query(
    `create database ${name} template ${options.empty === true ? EMPTY : TEMPLATE} owner ${ADMIN}`,
  )
  const url = urlOf(port, name, ADMIN)
  if (options.empty !== true) await install(url)
  const sessions: pg.Client[] = []
  const session = async (as = url) => {
    const client = await connected(as)
    sessions.push(client)
    return client
  }
  let own: Promise<pg.Client> | undefined
  t.teardown(async () => {
    await Promise.all(sessions.map((client) => client.end().catch(() => {})))
    await superuser.query(`drop database if exists ${name} with (force)`)
    await superuser.end()
  })
  return {
    name,
    port,
    url,
    writerUrl: urlOf(port, name, "writer"),
    superuserUrl: urlOf(port, name, "postgres"),
    session,
    async query<Row extends pg.QueryResultRow>(sql: string, values?: unknown[]) {
      own ??= session()
      const result = await (await own).query<Row>(sql, values)
      return (Array.isArray(result) ? result.at(-1) : result).rows
    },
  }
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on("error", () => {})
  await client.connect()
  return client
}
