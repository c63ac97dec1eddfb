/** The packages as they are published: packed from a copy of the sources, and installed into empty projects. */

import { execFile } from "node:child_process"
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { Test } from "tap"

const ROOT = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
/** What a package is made of is none of these. */
const LEFT_OUT = ["bench", "coverage", "dist", "node_modules", "tests"]

/** The path of a program among the development tools. */
export const tool = (name: string): string => join(ROOT, "node_modules/.bin", name)

/** Holds a tarball against what package managers and TypeScript's resolutions expect. @param profile those that count. */
export async function checkTarball(tarball: string, profile: "strict" | "esm-only"): Promise<void> {
  await succeed(ROOT, tool("publint"), ["run", tarball, "--strict"])
  await succeed(ROOT, tool("attw"), [tarball, "--profile", profile])
}

export interface Finished {
  code: number
  out: string
  err: string
}

/** Runs a program to its end, with nothing of the surroundings but what npm needs. */
export async function finish(
  cwd: string,
  program: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<Finished> {
  const { PATH = "", HOME = "" } = process.env
  const kept = Object.entries(process.env).filter(([name]) =>
    /^npm_config_(registry|cache|userconfig)$/i.test(name),
  )
  const surroundings = { PATH, HOME, ...Object.fromEntries(kept), ...env }
  // tap has every process load its hooks, with which tsc and npm do not get on.
  const bare = ["-u", "NODE_OPTIONS", program, ...args]
  return promisify(execFile)("env", bare, { cwd, env: surroundings }).then(
    ({ stdout, stderr }) => ({ code: 0, out: stdout, err: stderr }),
    ({ code, stdout, stderr }) => ({ code, out: stdout, err: stderr }),
  )
}

/** @throws what it printed, if it failed. */
export async function succeed(...args: Parameters<typeof finish>): Promise<Finished> {
  const ended = await finish(...args)
  if (ended.code !== 0) throw new Error(`${args[1]} ${args[2].join(" ")}: ${ended.out}${ended.err}`)
  return ended
}

/** A directory that goes with the test. */
export async function temporary(t: Test): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-packed-"))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  return home
}

/** Packs the package of a directory. @returns the tarball's path. */
export async function pack(t: Test, directory: "." | "client"): Promise<string> {
  const home = await temporary(t)
  const sources = join(home, "sources")
  await mkdir(sources)
  for (const name of await readdir(ROOT)) {
    if (LEFT_OUT.includes(name) || name.startsWith(".")) continue
    await cp(join(ROOT, name), join(sources, name), {
      recursive: true,
      filter: (path) => !path.endsWith("dist"),
    })
  }
  await symlink(join(ROOT, "node_modules"), join(sources, "node_modules"))
  const cwd = join(sources, directory)
  await succeed(cwd, "npm", ["run", "prepack"])
  // Without what else npm runs before it packs: that sets up the development tools, which are the checkout's.
  const options = ["--ignore-scripts", "--json", "--pack-destination", home]
  const { out } = await succeed(cwd, "npm", ["pack", ...options])
  return join(home, JSON.parse(out)[0].filename)
}

/** Installs a tarball into an empty project. @returns its directory. */
export async function installed(t: Test, tarball: string, ...options: string[]): Promise<string> {
  const project = await temporary(t)
  await writeFile(join(project, "package.json"), '{ "name": "project", "type": "module" }')
  const quiet = ["--prefer-offline", "--no-audit", "--no-fund"]
  await succeed(project, "npm", ["install", ...quiet, ...options, tarball])
  return project
}
