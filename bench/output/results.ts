/** The last results of each group, kept in a file beside the code, from which tables and charts are drawn. */

import { readFile, writeFile } from "node:fs/promises"
import { cpus, loadavg, totalmem } from "node:os"
import { z } from "zod"
import { Row } from "../harness/row.ts"

const FILE = new URL("../results.json", import.meta.url)

/** What the figures depend on. It names no host and no place. */
const Machine = z.strictObject({
  cores: z.number(),
  cpu: z.string(),
  memory_gb: z.number(),
  platform: z.string(),
  node: z.string(),
  postgresql: z.string(),
  /** The load average when the run began: what else was going on. */
  load: z.number(),
})
export type Machine = z.infer<typeof Machine>

const Run = z.strictObject({
  group: z.string(),
  date: z.iso.date(),
  quick: z.boolean(),
  machine: Machine,
  rows: z.array(Row),
})
/** One run of a group. */
export type Run = z.infer<typeof Run>

const Results = z.array(Run)

export function describeMachine(postgresql: string): Machine {
  return {
    cores: cpus().length,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    memory_gb: Math.round(totalmem() / 2 ** 30),
    platform: `${process.platform} ${process.arch}`,
    node: process.version,
    postgresql,
    load: Math.round((loadavg()[0] as number) * 10) / 10,
  }
}

/** @throws Error if the file is not what it should be */
export const readResults = async (): Promise<Run[]> => Results.parse(JSON.parse(await readFile(FILE, "utf8")))

/** Keeps runs in the place of the last ones of the same groups. @returns all that are kept now. */
export async function keepResults(runs: Run[]): Promise<Run[]> {
  const fresh = new Set(runs.map(({ group }) => group))
  const kept = [...(await readResults()).filter(({ group }) => !fresh.has(group)), ...runs]
  await writeFile(FILE, `${JSON.stringify(kept, undefined, 2)}\n`)
  return kept
}
