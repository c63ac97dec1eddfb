/** The numbered files of sql/, as they are applied and printed. */

import { createHash } from "node:crypto"
import { readdir, readFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

export interface Migration {
  version: number
  name: string
  /** SHA-256 of the text. */
  hash: string
  /** The last migration of the oldest program that may work with the schema after it; undefined: only one that knows it. */
  oldest: number | undefined
  sql: string
}

const DIRECTORY = join(dirname(fileURLToPath(import.meta.resolve("#root/package.json"))), "sql")

/** Reads the migrations in order. */
export async function readMigrations(): Promise<Migration[]> {
  const files = (await readdir(DIRECTORY)).filter((file) => /^\d{4}_\w+\.sql$/.test(file)).sort()
  return Promise.all(
    files.map(async (name) => {
      const sql = await readFile(join(DIRECTORY, name), "utf8")
      return {
        version: Number(name.slice(0, 4)),
        name,
        hash: createHash("sha256").update(sql).digest("hex"),
        oldest: oldestOf(sql),
        sql,
      }
    }),
  )
}

/** The demo's election schema. */
export const readElectionSchema = (): Promise<string> => readFile(join(DIRECTORY, "election.sql"), "utf8")

/** The first line of a migration may say beside which programs it runs. */
function oldestOf(sql: string): number | undefined {
  const [, version] = /^-- Runs beside programs from (\d{4}) on/.exec(sql) ?? []
  return version === undefined ? undefined : Number(version)
}

/** The statement that applies one migration and notes it. */
export const applySql = ({ version, name, hash, oldest, sql }: Migration): string =>
  `${sql}\ninsert into relay.migration (version, name, hash, oldest) values (${version}, '${name}', '${hash}', ${oldest ?? "null"});\n`
