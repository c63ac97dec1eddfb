/** Owns postmaster.pid, where a PostgreSQL server says who and where it is, and doubts it: a crash leaves it behind. */

import { readFile, readlink, realpath } from "node:fs/promises"
import { join } from "node:path"
import { codeOf } from "./errors.ts"
import { freePort } from "./port.ts"
import { processStart } from "./process.ts"

export type FoundServer =
  | { kind: "running"; pid: number; port: number; ready: boolean }
  | { kind: "stale"; pid: number; why: "gone" | "another program" }

/** Looks at postmaster.pid: is a server running in this data directory, or is the file left over? */
export async function findServer(dataDir: string): Promise<FoundServer | undefined> {
  const file = await readPidFile(dataDir)
  if (!file) return undefined
  const { pid, port } = file
  if (!(await processStart(pid))) return { kind: "stale", pid, why: "gone" }
  if (!(await isServerOf(pid, port, dataDir))) return { kind: "stale", pid, why: "another program" }
  return { kind: "running", pid, port, ready: file.status === "ready" }
}

/** What the file says, true or not. The status is "ready" once the server answers. */
export async function readPidFile(
  dataDir: string,
): Promise<{ pid: number; port: number; status: string } | undefined> {
  const text = await readFile(join(dataDir, "postmaster.pid"), "utf8").catch((error: unknown) => {
    if (codeOf(error) !== "ENOENT") throw error
  })
  if (!text) return undefined
  const lines = text.split("\n")
  return { pid: Math.abs(Number(lines[0])), port: Number(lines[3]), status: lines[7]?.trim() ?? "" }
}

async function isServerOf(pid: number, port: number, dataDir: string): Promise<boolean> {
  if (process.platform !== "linux") return (await freePort(port).catch(() => undefined)) === undefined
  try {
    // A server works in its data directory; a shell standing there is told apart by its name.
    const [cwd, name, data] = await Promise.all([
      readlink(`/proc/${pid}/cwd`),
      readFile(`/proc/${pid}/comm`, "utf8"),
      realpath(dataDir),
    ])
    return cwd === data && /^post(gres|master)$/.test(name.trim())
  } catch {
    return false // its owner is somebody else, or it ended meanwhile
  }
}
