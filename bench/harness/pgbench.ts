/** PostgreSQL's own load generator for writers, where it is installed. */

import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { z } from "zod"
import { AbsentError } from "./server.ts"

export interface Load {
  databaseUrl: string
  /** A file in bench/writers/, without its ending. */
  script: string
  writers: number
  seconds: number
  /** Settings of each writer's session. */
  settings?: Record<string, string> | undefined
}

const Count = z.coerce.number().positive()

/** Lets writers write as fast as they can. @returns transactions a second. @throws AbsentError */
export async function pgbench({
  databaseUrl,
  script,
  writers,
  seconds,
  settings = {},
}: Load): Promise<number> {
  const file = fileURLToPath(new URL(`../writers/${script}.sql`, import.meta.url))
  const clients = ["-c", String(writers), "-j", String(Math.min(2, writers))]
  const child = spawn(
    "pgbench",
    ["-n", "-M", "prepared", "-f", file, ...clients, "-T", String(seconds), databaseUrl],
    {
      env: {
        ...process.env,
        PGOPTIONS: Object.entries(settings)
          .map(([name, value]) => `-c ${name}=${value}`)
          .join(" "),
      },
      stdio: ["ignore", "pipe", "pipe"],
    },
  )
  let out = ""
  let err = ""
  child.stdout.on("data", (data: Buffer) => {
    out += data
  })
  child.stderr.on("data", (data: Buffer) => {
    err += data
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", (error: NodeJS.ErrnoException) =>
      reject(error.code === "ENOENT" ? new AbsentError("pgbench is not installed") : error),
    )
    child.once("close", resolve)
  })
  const tps = Count.safeParse(/^tps = ([\d.]+)/m.exec(out)?.[1])
  if (code !== 0 || !tps.success) throw new Error(`pgbench failed: ${err.trim().split("\n").at(-1)}`)
  return tps.data
}
