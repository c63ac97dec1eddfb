/** `commitcast install` and `uninstall`: the relay's schema in a database. */

import type { Command } from "commander"
import { findDatabase } from "../schema/database.ts"
import { install, uninstall } from "../schema/install.ts"
import { addCommand, DATABASE, note, print } from "./arguments.ts"
import { settingsOf } from "./settings.ts"

const SAID = {
  installed: "installed",
  upgraded: "upgraded",
  mended: "mended what did not work;",
  repaired: "parts of the schema were missing; made it anew,",
} as const

export function addInstall(program: Command): void {
  const summary = "put the relay's schema into the database, and the default tables under capture"
  addCommand(program, "install", summary, DATABASE).action(async (options) => {
    const done = await install(await findDatabase(settingsOf(options)))
    const tables = done.tracked.length > 0 ? `; captured: ${done.tracked.join(", ")}` : ""
    print(
      done.state === "present"
        ? `nothing to do: version ${done.version} is installed`
        : `${SAID[done.state]} version ${done.version}${tables}`,
    )
    done.warnings.forEach(note)
  })
}

export function addUninstall(program: Command): void {
  const summary = "remove the relay's schema and all its triggers from the database"
  addCommand(program, "uninstall", summary, DATABASE).action(async (options) => {
    const removed = await uninstall(await findDatabase(settingsOf(options)))
    print(removed ? "removed" : "nothing to do: it is not installed")
  })
}
