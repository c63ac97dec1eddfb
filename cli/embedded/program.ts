/** Owns how other programs are run, PostgreSQL's above all: as which user, and with how little of our environment. */

import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { ClusterError } from "./errors.ts"

const execute = promisify(execFile)

/** An operating system user the server runs as; PostgreSQL refuses root. */
export interface RunAs {
  name: string
  uid: number
  gid: number
}

/** Runs a program to its end; fails when it does. */
export const run = (
  file: string,
  args: string[],
  cwd: string,
  user?: RunAs,
): Promise<{ stdout: string; stderr: string }> => execute(file, args, surroundings(cwd, user))

/** Only what a server needs of our environment: no PG* that would steer it, no locale, and none of our secrets. */
export function surroundings(
  cwd: string,
  user?: RunAs,
): { cwd: string; env: NodeJS.ProcessEnv; uid?: number; gid?: number } {
  const kept = ["PATH", "LD_LIBRARY_PATH", "SystemRoot", "TEMP", "TMP"].map((name) => [
    name,
    process.env[name],
  ])
  const env = Object.fromEntries([...kept.filter(([, value]) => value !== undefined), ["LC_ALL", "C"]])
  return { cwd, env, ...(user && { uid: user.uid, gid: user.gid }) }
}

/** The path of one of PostgreSQL's programs. */
export const programIn = (binDir: string, name: string): string =>
  join(binDir, process.platform === "win32" ? `${name}.exe` : name)

/** "18.4" of the postgres in that directory; fails when it cannot be executed by that user. */
export async function serverVersion(binDir: string, user?: RunAs): Promise<string> {
  const { stdout } = await run(programIn(binDir, "postgres"), ["--version"], binDir, user)
  const version = /(\d+(?:\.\d+)*)/.exec(stdout)?.[1]
  if (!version) throw new ClusterError(`${binDir} holds no PostgreSQL: it answered ${JSON.stringify(stdout)}`)
  return version
}

/** True when that user can enter the directory. Asks the kernel rather than reading modes, so ACLs count too. */
export async function canReach(user: RunAs, directory: string): Promise<boolean> {
  return run("/bin/sh", ["-c", 'cd -- "$0"', directory], "/", user).then(
    () => true,
    () => false,
  )
}
