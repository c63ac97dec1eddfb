/** The package as a build makes it, in a directory of its own. */

import { execFile } from "node:child_process"
import { copyFile, mkdtemp, rm, symlink } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { Test } from "tap"

const ROOT = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
// Not bin/tsc, which has no extension: tap's hooks would take it for CommonJS.
const TSC = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "lib/tsc.js")

const compile = (project: string, outDir: string) =>
  promisify(execFile)(process.execPath, [TSC, "-p", project, "--outDir", outDir], { cwd: ROOT })

/** Builds the client's package as `node_modules` of a directory has it. */
export async function buildClient(directory: string): Promise<void> {
  const home = join(directory, "node_modules/commitcast-client")
  await compile("client", join(home, "dist"))
  await copyFile(join(ROOT, "client/package.json"), join(home, "package.json"))
}

/** Builds it. @returns the directory, with `dist/` and what this needs; gone with the test. */
export async function buildPackage(t: Test): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-build-"))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  await compile("tsconfig.build.json", join(home, "dist"))
  for (const name of ["package.json", "node_modules"]) await symlink(join(ROOT, name), join(home, name))
  return home
}
