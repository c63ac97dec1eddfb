/** PostgreSQL's own load generator for writers, where it is installed. */

import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { AbsentError } from "./server.ts"

export interface Load {
  databaseUrl: string
  /** A file in bench/writers/, without its ending. */
  script: string
  writers: number
  /**
   * How long they write before it counts: a session's first statements cost a hundred times what later ones do, and the
   * relay takes a moment to see that writers are busy.
   */
  warmSeconds: number
  seconds: number
  /** Settings of each writer's session. */
  settings?: Record<string, string> | undefined
}

const REPORT_SECONDS = 1
/** A machine that is busy leaves the last report out. */
const SPARE_SECONDS = 1

/** Lets writers write as fast as they can. @returns transactions a second once they are warm. @throws AbsentError */
export async function pgbench({
  databaseUrl,
  script,
  writers,
  warmSeconds,
  seconds,
  settings = {},
}: Load): Promise<number> {
  const file = fileURLToPath(new URL(`../writers/${script}.sql`, import.meta.url))
  const clients = ["-c", String(writers), "-j", String(Math.min(2, writers))]
  const child = spawn(
    "pgbench",
    [
      "-n",
      "-M",
      "prepared",
      "-f",
      file,
      ...clients,
      "-T",
      String(warmSeconds + seconds + SPARE_SECONDS),
      "-P",
      String(REPORT_SECONDS),
      databaseUrl,
    ],
    {
      env: {
        ...process.env,
        PGOPTIONS: Object.entries(settings)
          .map(([name, value]) => `-c ${name}=${value}`)
          .join(" "),
      },
      stdio: ["ignore", "ignore", "pipe"],
    },
  )
  let err = ""
  child.stderr.on("data", (data: Buffer) => {
    err += data
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", (error: NodeJS.ErrnoException) =>
      reject(error.code === "ENOENT" ? new AbsentError("pgbench is not installed") : error),
    )
    child.once("close", resolve)
  })
  const rate = code === 0 ? warmRate(err, warmSeconds) : undefined
  if (rate === undefined) throw new Error(`pgbench failed: ${err.trim().split("\n").at(-1)}`)
  return rate
}

/** Of the reports after the warm time, each by how long it is of; undefined if there is none. */
function warmRate(err: string, warmSeconds: number): number | undefined {
  const reports = [...err.matchAll(/^progress: ([\d.]+) s, ([\d.]+) tps/gm)].map(([, at, rate], i, all) => ({
    from: Number(all[i - 1]?.[1] ?? 0),
    to: Number(at),
    rate: Number(rate),
  }))
  const warm = reports.filter(({ from }) => from > warmSeconds - REPORT_SECONDS / 2)
  const seconds = warm.reduce((sum, { from, to }) => sum + to - from, 0)
  return seconds > 0
    ? warm.reduce((sum, { from, to, rate }) => sum + rate * (to - from), 0) / seconds
    : undefined
}
