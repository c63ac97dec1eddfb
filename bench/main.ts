/** `npm run bench`: measures group after group, and prints one table in which each row has the command that makes it. */

import { Command, InvalidArgumentError, Option } from "commander"
import { fanout } from "./groups/fanout.ts"
import type { Row } from "./row.ts"
import { SERVERS, type ServerName } from "./server.ts"
import { type Choice, type Group, openStage } from "./stage.ts"
import { renderTable } from "./table.ts"

const GROUPS: Record<string, Group> = { fanout }

const note = (line: string) => void process.stderr.write(`${line}\n`)

function readCount(text: string): number {
  const count = Number(text)
  if (!Number.isInteger(count) || count < 1)
    throw new InvalidArgumentError("It must be a whole number above 0.")
  return count
}
const readCounts = (text: string): number[] => text.split(",").map(readCount)
function readServers(text: string): ServerName[] {
  return text.split(",").map((name) => {
    const found = SERVERS.find((server) => server.toLowerCase() === name.trim().toLowerCase())
    if (found === undefined) throw new InvalidArgumentError(`There are: ${SERVERS.join(", ")}.`)
    return found
  })
}
function readGroup(text: string): string {
  if (text in GROUPS) return text
  throw new InvalidArgumentError(`There are: ${Object.keys(GROUPS).join(", ")}.`)
}

async function measure(group: string, choice: Choice): Promise<Row[]> {
  const stage = await openStage(choice, note)
  const rows: Row[] = []
  try {
    for await (const row of (GROUPS[group] as Group)(stage)) rows.push(row)
  } finally {
    await stage.close()
  }
  return rows
}

const program = new Command("npm run bench --")
  .description("Measures CommitCast, beside what people would use instead.")
  .argument("[group]", `one of ${Object.keys(GROUPS).join(", ")}; default: all`, readGroup)
  .option("--quick", "shorter runs, smaller crowds", false)
  .option("--clients <list>", "how many clients", readCounts)
  .option("--burst <list>", "how many changes a transaction", readCounts)
  .addOption(new Option("--servers <list>", SERVERS.join(", ")).argParser(readServers))
  .option("--changes <n>", "replay: how many changes", readCount)
  .action(async (group: string | undefined, choice: Choice) => {
    const rows: Row[] = []
    for (const name of group === undefined ? Object.keys(GROUPS) : [group])
      rows.push(...(await measure(name, choice)))
    process.stdout.write(`${renderTable(rows)}\n`)
  })
await program.parseAsync()
