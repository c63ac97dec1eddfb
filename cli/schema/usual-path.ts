/** The search_path that the role has by itself, in a pinned session: by it people write the names of their tables. */

import type pg from "pg"
import { inTransaction } from "./transaction.ts"

/** Runs statements in one transaction with it. Every name in them must be qualified, every operator too. */
export const withUsualPath = <T>(client: pg.Client, work: () => Promise<T>): Promise<T> =>
  inTransaction(client, work, "begin; set local search_path to default")

/** The oid of a table, which regclass takes as it takes a name. @throws DatabaseError if there is none. */
export const requireTable = (client: pg.Client, name: string): Promise<string> =>
  withUsualPath(client, async () => {
    const { rows } = await client.query<{ oid: string }>(
      "select $1::pg_catalog.regclass::pg_catalog.oid::pg_catalog.text as oid",
      [name],
    )
    return rows[0]?.oid as string
  })

/** The oid of a table, or undefined. */
export const findTable = (client: pg.Client, name: string): Promise<string | undefined> =>
  find(client, "to_regclass", name)

/** The oid of the one function that has this name, or undefined. */
export const findFunction = (client: pg.Client, name: string): Promise<string | undefined> =>
  find(client, "to_regproc", name)

const find = (client: pg.Client, how: "to_regclass" | "to_regproc", name: string) =>
  withUsualPath(client, async () => {
    const { rows } = await client.query<{ oid: string | null }>(
      `select pg_catalog.${how}($1::pg_catalog.text)::pg_catalog.oid::pg_catalog.text as oid`,
      [name],
    )
    return rows[0]?.oid ?? undefined
  })
