/** `commitcast sql`: what install would run, for a DBA to read and run. */

import type { Command } from "commander"
import { PIN } from "../../relay/lib/pinned-client.ts"
import { applySql, readMigrations } from "../schema/migrations.ts"
import { addCommand, print, readPositive } from "./arguments.ts"

export function addSql(program: Command): void {
  addCommand(program, "sql", "print the SQL that install would run, for a DBA", [])
    .option("--from <version>", "only what an installation of this version lacks", readPositive, 0)
    .action(async ({ from }) => {
      const wanted = (await readMigrations()).filter(({ version }) => version > from)
      print(`${PIN};\nbegin;\n${wanted.map(applySql).join("\n")}\ncommit;\nreset search_path;`)
    })
}
