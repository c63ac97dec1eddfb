/** The package as a build makes it, in a directory of its own. */

import { execFile } from "node:child_process"
import { mkdtemp, rm, symlink } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { Test } from "tap"

const ROOT = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
// Not bin/tsc, which has no extension: tap's hooks would take it for CommonJS.
const TSC = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "lib/tsc.js")

/** Builds it. @returns the directory, with `dist/` and what this needs; gone with the test. */
export async function buildPackage(t: Test): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-build-"))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const args = [TSC, "-p", "tsconfig.build.json", "--outDir", join(home, "dist")]
  await promisify(execFile)(process.execPath, args, { cwd: ROOT })
  for (const name of ["package.json", "node_modules"]) await symlink(join(ROOT, name), join(home, name))
  return home
}
