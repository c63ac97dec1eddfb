/** `commitcast config`: the settings as the relay would take them. */

import type { Command } from "commander"
import { ALL_SETTINGS, addCommand, print } from "./arguments.ts"
import { settingsOf, shownSettings } from "./settings.ts"

export function addConfig(program: Command): void {
  addCommand(program, "config", "check the settings and print them; secrets are not shown", ALL_SETTINGS)
    .option("--json", "for programs")
    .action((options) => {
      const shown = shownSettings(settingsOf(options))
      if (options.json) print(JSON.stringify(shown, undefined, 2))
      else for (const [name, value] of Object.entries(shown)) print(`${name}=${value}`)
    })
}
