/** The PostgreSQL servers that all test files of a run share. The first file that asks for a version starts it. */

import { spawn } from "node:child_process"
import { chmodSync, existsSync, mkdirSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { z } from "zod"
import { codeOf } from "../../cli/embedded/errors.ts"
import { processStart } from "../../cli/embedded/process.ts"
import { until } from "./wait.ts"

export type Version = "15" | "18"

/** The role that owns the test databases: not a superuser. */
export const ADMIN = "app"
export const TEMPLATE = "template_election"
export const EMPTY = "template_empty"
export const DEBIAN_15 = "/usr/lib/postgresql/15/bin"
const STATE_FILE = "state.json"

/** What the keeper of a server tells the test files. */
export const State = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("ready"), port: z.number() }),
  z.object({ kind: z.literal("failed"), error: z.string() }),
])
export type State = z.infer<typeof State>

export const stateFileIn = (home: string): string => join(home, STATE_FILE)

export const urlOf = (port: number, database: string, user: string, password = "tests"): string =>
  `postgres://${user}:${password}@127.0.0.1:${port}/${database}`

/** Whether that version is on this machine. */
export const hasVersion = (version: Version): boolean =>
  version === "18" || existsSync(join(DEBIAN_15, "postgres"))

/** The servers last as long as this process: the test runner, or a test file that was started without one. */
const owner = process.env.TAP === "1" ? process.ppid : process.pid
const ports = new Map<Version, Promise<number>>()

/** The port of the shared server, which is started if it does not run yet. @throws Error if it does not start. */
export function serverPort(version: Version): Promise<number> {
  const port = ports.get(version) ?? findOrStart(version)
  ports.set(version, port)
  return port
}

async function findOrStart(version: Version): Promise<number> {
  const started = (await processStart(owner)) ?? ""
  const home = join(tmpdir(), `commitcast-tests-${owner}-${started.split(":").at(-1)}-${version}`)
  if (claim(home)) startKeeper(version, home, started)
  let state: State | undefined
  await until(`PostgreSQL ${version}`, async () => {
    state = await readState(home)
    return state !== undefined
  })
  if (state?.kind !== "ready") throw new Error(`PostgreSQL ${version} does not start: ${state?.error}`)
  return state.port
}

/** Making the directory is the claim: of all who try, one succeeds. */
function claim(home: string): boolean {
  try {
    mkdirSync(home)
    chmodSync(home, 0o755)
    return true
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false
    throw error
  }
}

/** In a session of its own, so that neither the end of this file nor Ctrl-C ends it. */
function startKeeper(version: Version, home: string, started: string): void {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href
  const program = fileURLToPath(new URL("server-keeper.ts", import.meta.url))
  const args = ["--import", tsx, program, version, home, String(owner), started]
  spawn(process.execPath, args, { detached: true, stdio: "ignore" }).unref()
}

async function readState(home: string): Promise<State | undefined> {
  try {
    return State.parse(JSON.parse(await readFile(stateFileIn(home), "utf8")))
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined
    throw error
  }
}
