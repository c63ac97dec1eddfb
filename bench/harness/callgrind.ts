/** Counts what a statement costs in instructions: PostgreSQL in single-user mode, under valgrind where it is installed. */

import { spawn } from "node:child_process"
import { programIn, type RunAs, surroundings } from "../../cli/embedded/program.ts"
import { AbsentError } from "./server.ts"

/** A cluster that is shut down. */
export interface StoppedCluster {
  binDir: string
  dataDir: string
  /** Whom its data belongs to, where that is not the user of this process. */
  user: RunAs | undefined
  database: string
}

/** Without what another moment would bring by itself, and without waiting for a disk. */
const SETTINGS = ["fsync=off", "autovacuum=off", "shared_buffers=64MB", "max_wal_size=4GB"]

/** Runs statements, each a transaction, in one session of the superuser's. @throws Error if one of them fails */
export async function runSingle(cluster: StoppedCluster, statements: string[]): Promise<void> {
  await run(cluster, statements, programIn(cluster.binDir, "postgres"), [])
}

/**
 * Runs statements the same way, and counts.
 * @returns instructions from the start of the process to its end.
 * @throws AbsentError without valgrind
 */
export async function countInstructions(cluster: StoppedCluster, statements: string[]): Promise<number> {
  const valgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null"]
  const postgres = programIn(cluster.binDir, "postgres")
  const said = await run(cluster, statements, "valgrind", [...valgrind, postgres])
  const collected = /Collected\s*:\s*(\d+)/.exec(said)?.[1]
  if (collected === undefined) throw new Error(`valgrind counted nothing: ${said.slice(-500)}`)
  return Number(collected)
}

async function run(
  { binDir, dataDir, user, database }: StoppedCluster,
  statements: string[],
  program: string,
  args: string[],
): Promise<string> {
  const settings = SETTINGS.flatMap((setting) => ["-c", setting])
  const child = spawn(program, [...args, "--single", "-j", "-D", dataDir, ...settings, database], {
    ...surroundings(binDir, user),
    stdio: ["pipe", "ignore", "pipe"],
  })
  let said = ""
  child.stderr.on("data", (data: Buffer) => {
    said += data
  })
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", (error: NodeJS.ErrnoException) =>
      reject(error.code === "ENOENT" ? new AbsentError(`${program} is not installed`) : error),
    )
    child.once("close", resolve)
  })
  child.stdin.on("error", () => {}) // it may end before it has read all, and says why
  // With -j a statement ends with a semicolon and an empty line.
  child.stdin.end(statements.map((statement) => `${statement.trim()};\n\n`).join(""))
  const code = await ended
  const failure = /^.*\b(?:ERROR|FATAL|PANIC):.*$/m.exec(said)?.[0]
  if (code !== 0 || failure !== undefined)
    throw new Error(failure ?? `${program} failed: ${said.slice(-500)}`)
  return said
}
