/** `commitcast track` and `untrack`: which tables are captured, and how. */

import type { Command } from "commander"
import { findDatabase } from "../schema/database.ts"
import { track, untrack } from "../schema/track.ts"
import { addCommand, DATABASE, note, print, splitList } from "./arguments.ts"
import { settingsOf } from "./settings.ts"

export function addTrack(program: Command): void {
  addCommand(program, "track", "capture a table's changes; again after ALTER TABLE", DATABASE)
    .argument("<table>", "its name, with a schema if it is not on the search path")
    .option("--type <type>", "the message type; default: the table's name and _update")
    .option("--channels <json>", 'channels from columns, such as {"committee":"committee_id"}')
    .option("--columns <list>", "capture these columns only", splitList)
    .option("--exclude <list>", "never capture these columns", splitList)
    .option("--key <list>", "what identifies a row; default: the primary key", splitList)
    .option(
      "--restricted <json>",
      'columns that only certain roles may see, such as {"admin":["voter_name"]}',
    )
    .option(
      "--level <level>",
      "statement: the INSERT of many rows captured more cheaply; see the README's limits",
    )
    .option("--max-bytes <bytes>", "of a row with more JSON only key and channels are told; default: 8388608")
    .action(async (table: string, options) => {
      const { type, channels, columns, exclude, key, restricted, level, maxBytes } = options
      const given = { type, channels, columns, exclude, key, restricted, level, max_bytes: maxBytes }
      const warnings = await track(await findDatabase(settingsOf(options)), table, given)
      print(`captured: ${table}`)
      warnings.forEach(note)
    })
}

export function addUntrack(program: Command): void {
  addCommand(program, "untrack", "end the capture of a table", DATABASE)
    .argument("<table>")
    .action(async (table: string, options) => {
      const was = await untrack(await findDatabase(settingsOf(options)), table)
      print(was ? `not captured any more: ${table}` : `nothing to do: ${table} was not captured`)
    })
}
