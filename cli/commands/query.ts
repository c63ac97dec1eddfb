/** `commitcast query`: psql's work for people who have no psql. */

import type { Command } from "commander"
import { connect, findDatabase } from "../schema/database.ts"
import { addCommand, DATABASE, print } from "./arguments.ts"
import { settingsOf } from "./settings.ts"

/** Runs SQL and prints each result as a table on a terminal, as JSON lines elsewhere. */
export async function query(databaseUrl: string, sql: string, print: (line: string) => void): Promise<void> {
  const client = await connect(databaseUrl)
  try {
    // It is its author's SQL, and means what it means in psql.
    await client.query("reset search_path")
    const results = await client.query(sql)
    for (const { command, rowCount, rows } of Array.isArray(results) ? results : [results]) {
      if (rows.length === 0)
        print(
          process.stdout.isTTY
            ? `${command} ${rowCount ?? 0}`
            : JSON.stringify({ command, rows: rowCount ?? 0 }),
        )
      else if (process.stdout.isTTY) console.table(rows)
      else for (const row of rows) print(JSON.stringify(row))
    }
  } finally {
    await client.end()
  }
}

export function addQuery(program: Command): void {
  addCommand(program, "query", "run SQL in the relay's database, for people without psql", DATABASE)
    .argument("<sql>")
    .action(async (sql: string, options) => query(await findDatabase(settingsOf(options)), sql, print))
}
