/** `npm start` as a person and a supervisor end it: nothing of it stays behind. */

import { type ChildProcess, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { chmod, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import t, { type Test } from "tap"
import { codeOf } from "../../cli/embedded/errors.ts"
import { processStart } from "../../cli/embedded/process.ts"
import { readState } from "../../cli/embedded/state.ts"
import { workDirectory } from "../helpers/command.ts"
import { until } from "../helpers/wait.ts"

const ROOT = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))

interface Npm {
  npm: ChildProcess
  directory: string
  printed(): string
  /** Resolves with npm's exit code or signal. */
  ended: Promise<number | string | null>
  /** Whether nobody is left who could print. */
  silent(): boolean
}

interface Started extends Npm {
  /** Resolves when the relay and its PostgreSQL are gone. */
  gone(): Promise<void>
}

/** Runs `npm start` with a directory of its own, in a process group of its own. */
async function npmBegin(t: Test, shell: string): Promise<Npm> {
  const directory = join(await workDirectory(t), "embedded")
  const npm = spawn("npm", ["start", "--", "--port", "0"], {
    cwd: ROOT,
    env: {
      PATH: process.env.PATH ?? "",
      HOME: process.env.HOME ?? "",
      COMMITCAST_DIR: directory,
      npm_config_script_shell: shell,
    },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  })
  let printed = ""
  for (const stream of [npm.stdout, npm.stderr])
    stream.on("data", (data: Buffer) => {
      printed += data
    })
  const ended = new Promise<number | string | null>((resolve) => {
    npm.once("exit", (code, signal) => resolve(code ?? signal))
  })
  let silent = false
  npm.once("close", () => {
    silent = true
  })
  t.teardown(() => {
    try {
      if (!silent) process.kill(-(npm.pid as number), "SIGKILL")
    } catch (error) {
      // Its processes may be gone before their streams are read to the end.
      if (codeOf(error) !== "ESRCH") throw error
    }
  })
  return { npm, directory, ended, printed: () => printed, silent: () => silent }
}

/** Runs it until it is ready. */
async function npmStart(t: Test, shell: string): Promise<Started> {
  const begun = await npmBegin(t, shell)
  const { npm, directory, printed } = begun
  await until("it is ready", () => /"event":"ready"/.test(printed()) || npm.exitCode !== null)
  const state = await readState(directory)
  if (state === undefined) throw new Error(`it did not start: ${printed()}`)
  const pids = [state.pid, state.postgres_pid]
  t.teardown(async () => {
    for (const pid of pids) if ((await processStart(pid)) !== undefined) process.kill(pid, "SIGKILL")
  })
  const gone = () =>
    until("relay and PostgreSQL are gone", async () => {
      const lives = await Promise.all(pids.map(processStart))
      return lives.every((life) => life === undefined)
    })
  return { ...begun, gone }
}

/** npm runs a script as `shell -c script`. Some shells give their place to it, others stay and pass no signal on. */
const SHELLS = { "that gives its place": 'eval "exec $2"', "that stays": 'eval "$2"; exit $?' }

for (const [name, script] of Object.entries(SHELLS)) {
  t.test(`with a shell ${name}`, async (t) => {
    const shell = join(await workDirectory(t), "shell")
    await writeFile(shell, `#!/bin/sh\n${script}\n`)
    await chmod(shell, 0o755)

    t.test("SIGTERM to npm alone ends the relay and its PostgreSQL", async (t) => {
      const { npm, ended, gone, printed } = await npmStart(t, shell)
      npm.kill("SIGTERM")
      await ended
      await gone()
      t.match(printed(), /"event":"stopped"/, "in order")
    })

    t.test("SIGTERM to npm while PostgreSQL is made ends both in order, too", async (t) => {
      const { npm, directory, ended, printed, silent } = await npmBegin(t, shell)
      await until("it has begun", () => existsSync(join(directory, "secrets.json")))
      npm.kill("SIGTERM")
      await ended
      await until("the relay is gone", silent)
      t.match(printed(), /"event":"stopped"/, "in order")
      t.notOk(existsSync(join(directory, "data", "postmaster.pid")), "and so is PostgreSQL")
    })

    t.test("Ctrl-C, which all of them hear and npm passes on, is one signal", async (t) => {
      const { npm, ended, gone, printed } = await npmStart(t, shell)
      process.kill(-(npm.pid as number), "SIGINT")
      await ended
      await gone()
      t.match(printed(), /"event":"stopped"/, "in order")
      t.equal(printed().match(/"event":"stopping"/g)?.length, 1)
    })
  })
}
