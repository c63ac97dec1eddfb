/** The connection of a reading session: every value comes as PostgreSQL's text. */

import { Socket } from "node:net"
import type pg from "pg"
import { PinnedClient } from "../lib/pinned-client.ts"
import { LogQuery, type Prepared, type Values } from "./log-query.ts"

/** How long a query on the log may take. Milliseconds. */
export const QUERY_TIMEOUT_MS = 10_000

export interface LogConnection {
  connect(): Promise<void>
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

/** Makes it; it is not connected yet. */
export function createLogConnection(connectionString: string): LogConnection {
  const socket = new Socket()
  const client = new PinnedClient({
    connectionString,
    application_name: "commitcast feed",
    stream: () => socket,
    keepAlive: true,
    query_timeout: QUERY_TIMEOUT_MS,
    connectionTimeoutMillis: QUERY_TIMEOUT_MS,
    types: asText as pg.CustomTypesConfig,
  })
  // A running query rejects by itself. If none is running, the next one rejects.
  client.on("error", () => {})
  const rows: LogConnection["rows"] = async (query) =>
    (await client.query<Values>({ ...query, rowMode: "array" })).rows
  return {
    async connect() {
      await client.connect()
    },
    async run(statements) {
      await client.query(statements)
    },
    rows,
    prepared: (query) => client.query(new LogQuery(query)).rows,
    objects: async (text, values = []) => (await client.query({ text, values })).rows,
    one: async (text, values = []) => (await rows({ text, values }))[0]?.[0] as string,
    close() {
      client.end().catch(() => {})
      socket.destroySoon()
    },
  }
}

/** Whether a query failed because it took too long. */
export const isTimeout = (error: unknown): boolean => (error as Error).message === "Query read timeout"
