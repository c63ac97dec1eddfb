/** The connection of a reading session: every value comes as PostgreSQL's text. */

import type pg from "pg"
import type { Database } from "../lib/database.ts"
import { PinnedClient } from "../lib/pinned-client.ts"
import { LogQuery, type Prepared, type Values } from "./log-query.ts"

/** How long a query on the log may take. Milliseconds. */
export const QUERY_TIMEOUT_MS = 10_000

export interface LogConnection {
  /** Several statements, whose results nobody wants. */
  run(statements: string): Promise<void>
  /** The rows of one. pg returns them as arrays: making its objects took more time than everything else. */
  rows(query: { text: string; values?: unknown[]; query_timeout?: number }): Promise<Values[]>
  /** The same of a query that comes again and again, and is prepared. */
  prepared(query: Prepared): Promise<Values[]>
  /** The rows as objects, where they are few. */
  objects(text: string, values?: unknown[]): Promise<Array<Record<string, string | null>>>
  /** The one value that a statement returns. */
  one(text: string, values?: unknown[]): Promise<string>
  close(): void
}

const asText = { getTypeParser: () => (value: string) => value }

/** Opens one. @throws if no server can be reached. */
export async function openLogConnection(database: Database): Promise<LogConnection> {
  const dialled = await database.dial("commitcast feed")
  const client = new PinnedClient(
    {
      ...dialled,
      keepAlive: true,
      query_timeout: QUERY_TIMEOUT_MS,
      connectionTimeoutMillis: QUERY_TIMEOUT_MS,
      types: asText as pg.CustomTypesConfig,
    },
    database,
  )
  const close = () => {
    client.end().catch(() => {})
    dialled.stream().destroySoon()
  }
  // A running query rejects by itself. If none is running, the next one rejects.
  client.on("error", () => {})
  const rows: LogConnection["rows"] = async (query) =>
    (await client.query<Values>({ ...query, rowMode: "array" })).rows
  try {
    await client.connect()
  } catch (error) {
    close()
    throw error
  }
  return {
    async run(statements) {
      await client.query(statements)
    },
    rows,
    prepared: (query) => client.query(new LogQuery(query)).rows,
    objects: async (text, values = []) => (await client.query({ text, values })).rows,
    one: async (text, values = []) => (await rows({ text, values }))[0]?.[0] as string,
    close,
  }
}

/** Whether a query failed because it took too long. */
export const isTimeout = (error: unknown): boolean => (error as Error).message === "Query read timeout"
