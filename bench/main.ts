/** `npm run bench`: measures group after group, and prints a table in which each row has the command that makes it. */

import { Command, InvalidArgumentError } from "commander"
import { captureInstructions } from "./groups/capture-instructions.ts"
import { fanout } from "./groups/fanout.ts"
import { growth, SERIES } from "./groups/growth.ts"
import { latency } from "./groups/latency.ts"
import { memory } from "./groups/memory.ts"
import { parts } from "./groups/parts.ts"
import { prompt } from "./groups/prompt.ts"
import { replay } from "./groups/replay.ts"
import { returns } from "./groups/returns.ts"
import { stuck } from "./groups/stuck.ts"
import { workers } from "./groups/workers.ts"
import { writers } from "./groups/writers.ts"
import { SERVERS, type ServerName } from "./harness/server.ts"
import { type Choice, type Group, openStage } from "./harness/stage.ts"
import { writeDocument } from "./output/document.ts"
import { describeMachine, keepResults, type Run, readResults } from "./output/results.ts"
import { renderText } from "./output/table.ts"

/** In the order in which they run. */
const GROUPS: Record<string, Group> = {
  writers,
  "capture-instructions": captureInstructions,
  latency,
  parts,
  fanout,
  workers,
  memory,
  replay,
  returns,
  growth,
  prompt,
  stuck,
}

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
function readSeries(text: string): string[] {
  const names = text.split(",").map((name) => name.trim())
  if (names.every((name) => SERIES.some((series) => series.name === name))) return names
  throw new InvalidArgumentError(`There are: ${SERIES.map(({ name }) => name).join(", ")}.`)
}
function readGroup(text: string): string {
  if (Object.hasOwn(GROUPS, text)) return text
  throw new InvalidArgumentError(`There are: ${Object.keys(GROUPS).join(", ")}.`)
}

async function measure(name: string, group: Group, choice: Choice): Promise<Run> {
  const stage = await openStage(choice, note)
  try {
    const machine = describeMachine(stage.postgresql)
    const rows = []
    for await (const row of group(stage)) rows.push(row)
    return { group: name, date: new Date().toISOString().slice(0, 10), quick: choice.quick, machine, rows }
  } finally {
    await stage.close()
  }
}

interface Options extends Choice {
  write: boolean
  draw: boolean
}

const program = new Command("npm run bench --")
  .description(
    "Measures CommitCast, beside what people would use instead. Figures count as ratios in one run.",
  )
  .argument("[group]", `${Object.keys(GROUPS).join(", ")}; default: all`, readGroup)
  .option("--quick", "shorter runs, smaller crowds", false)
  .option("--write", "keep the results in bench/results.json, and in the tables and charts of docs/", false)
  .option("--draw", "measure nothing: make tables and charts from the results that are kept", false)
  .option("--servers <list>", `of ${SERVERS.join(", ")}`, readServers)
  .option("--waits", "writers: say what they wait for, which costs them a little", false)
  .option("--clients <list>", "how many clients", readCounts)
  .option("--burst <list>", "fanout: how many changes a transaction", readCounts)
  .option("--window <n>", "fanout: how many bursts may be under way at the same time", readCount)
  .option("--series <list>", `growth: of ${SERIES.map(({ name }) => name).join(", ")}`, readSeries)
  .option("--churn <n>", "memory: how many come and go", readCount)
  .option("--changes <n>", "replay, returns, prompt: how many changes", readCount)
  .action(async (chosen: string | undefined, { write, draw, ...choice }: Options) => {
    if (draw) return writeDocument(await readResults())
    const runs: Run[] = []
    for (const [name, group] of Object.entries(GROUPS))
      if (chosen === undefined || chosen === name) runs.push(await measure(name, group, choice))
    for (const { group, rows } of runs) process.stdout.write(`\n${group}\n${renderText(rows)}\n`)
    if (write) await writeDocument(await keepResults(runs))
  })

// What was started goes with this process: see the handlers of "exit".
process.once("SIGINT", () => process.exit(130))
process.once("SIGTERM", () => process.exit(143))
await program.parseAsync()
