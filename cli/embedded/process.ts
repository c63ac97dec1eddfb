/** Owns the identity of a process: its pid, and when that pid was given to it. */

import { readFile } from "node:fs/promises"
import { z } from "zod"
import { codeOf } from "./errors.ts"
import { run } from "./program.ts"

export const Identity = z.object({ pid: z.int().positive(), started: z.string() })
export type Identity = z.infer<typeof Identity>

export async function myself(): Promise<Identity> {
  return { pid: process.pid, started: (await processStart(process.pid)) ?? "" }
}

/** False as well when the pid meanwhile belongs to another process. */
export const isAlive = async ({ pid, started }: Identity): Promise<boolean> =>
  (await processStart(pid)) === started

/** Names one life of a process: differs after its pid was given to another. Undefined when there is none (a zombie is none). */
export async function processStart(pid: number): Promise<string | undefined> {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (codeOf(error) !== "EPERM") return undefined // EPERM: alive, and another user's
  }
  if (process.platform === "win32") return "alive"
  if (process.platform !== "linux") {
    const { stdout } = await run("ps", ["-o", "lstart=", "-p", String(pid)], "/").catch(() => ({
      stdout: "",
    }))
    return stdout.trim() || undefined
  }
  try {
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim()
    const line = await readFile(`/proc/${pid}/stat`, "utf8")
    const fields = line.slice(line.lastIndexOf(")") + 2).split(" ") // the name before it may hold blanks
    return fields[0] === "Z" || fields[0] === "X" ? undefined : `${boot}:${fields[19]}`
  } catch {
    return undefined
  }
}
