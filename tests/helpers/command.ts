/** The command line as a person runs it: a process of its own. */

import { type ChildProcess, spawn } from "node:child_process"
import { chmod, mkdtemp, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import type { Test } from "tap"
import { until } from "./wait.ts"

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..")
const TSX = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href

export interface Run {
  child: ChildProcess
  out(): string
  err(): string
  /** Resolves with the exit code. */
  ended: Promise<number | null>
  /** Waits until the output fits. */
  prints(what: string, pattern: RegExp): Promise<RegExpMatchArray>
}

/** A directory of the test's own, for .commitcast and .env. */
export async function workDirectory(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "commitcast-run-"))
  // Where root runs the tests, a PostgreSQL that cannot reach it keeps its data elsewhere, and nothing removes that.
  await chmod(path, 0o755)
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

/** Runs `commitcast`, as `runScript` does. */
export const run = (
  t: Test,
  cwd: string,
  args: string[],
  env: Record<string, string> = {},
  descriptors?: number,
): Run => runScript(t, cwd, [join(ROOT, "cli/main.ts"), ...args], env, descriptors)

/**
 * Runs a program with nothing of the surrounding environment but the path; killed with the test if it still runs.
 * @param descriptors how many file descriptors it may have.
 */
export function runScript(
  t: Test,
  cwd: string,
  args: string[],
  env: Record<string, string> = {},
  descriptors?: number,
): Run {
  const command = [process.execPath, "--import", TSX, ...args]
  const [program = "", ...rest] =
    descriptors === undefined
      ? command
      : ["sh", "-c", `ulimit -n ${descriptors} && exec "$0" "$@"`, ...command]
  const child = spawn(program, rest, {
    cwd,
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  })
  let out = ""
  let err = ""
  child.stdout.on("data", (data: Buffer) => {
    out += data.toString()
  })
  child.stderr.on("data", (data: Buffer) => {
    err += data.toString()
  })
  const ended = new Promise<number | null>((resolve) => {
    child.on("close", (code) => resolve(code))
  })
  t.teardown(async () => {
    child.kill("SIGTERM")
    const timer = setTimeout(() => child.kill("SIGKILL"), 8_000)
    await ended
    clearTimeout(timer)
  })
  const all = () => out + err
  return {
    child,
    out: () => out,
    err: () => err,
    ended,
    async prints(what, pattern) {
      await until(`${what}`, () => pattern.test(all()) || child.exitCode !== null).catch((error: Error) => {
        throw new Error(`${error.message}\n${all()}`)
      })
      const match = all().match(pattern)
      if (match === null) throw new Error(`ended without ${what}: ${all()}`)
      return match
    },
  }
}

/** Runs a command to its end. */
export async function finish(
  t: Test,
  cwd: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<{ code: number | null; out: string; err: string }> {
  const started = run(t, cwd, args, env)
  const code = await started.ended
  return { code, out: started.out(), err: started.err() }
}
