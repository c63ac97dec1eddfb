/** Owns where the data of an embedded directory is: inside it, or as root where the server's user can reach it. */

import { createHash } from "node:crypto"
import { chmod, chown, mkdir, readdir, readlink, realpath, rename, rm, symlink } from "node:fs/promises"
import { dirname, join } from "node:path"
import { dataOwner, serverUser } from "./cluster.ts"
import { EmbeddedError } from "./errors.ts"
import { exists, mkdirForAll } from "./file.ts"
import type { Narrator } from "./narrator.ts"
import { canReach, type RunAs } from "./program.ts"

export const SYSTEM_DIR = "/var/lib/commitcast" // where another user can reach what root may not share

export interface Place {
  dataDir: string
  /** Who runs the server there; undefined when this process does. */
  user: RunAs | undefined
}

/** Finds the data, or makes room for it. What is no finished database is set aside, never deleted. */
export async function placeData(dir: string, systemDir: string, log: Narrator): Promise<Place> {
  const data = join(dir, "data")
  const there = await realpath(data).catch(() => undefined)
  if (there) {
    await setAsideUnfinished(there, log)
    if (await exists(there)) return { dataDir: there, user: await dataOwner(there) }
  }
  const user = await serverUser()
  const target = await readlink(data).catch(() => undefined)
  if (!target && (!user || (await canReach(user, dirname(dir))))) {
    if (user) await chown(dir, user.uid, user.gid) // mode 0700 and root's, it would keep the server out
    return { dataDir: data, user }
  }
  const hash = createHash("sha256")
    .update(await realpath(dir))
    .digest("hex")
    .slice(0, 12)
  const home = join(systemDir, hash)
  const dataDir = join(home, "data")
  if (!user || (target && target !== dataDir))
    throw new EmbeddedError(`${data} points to ${target}, which is not there: is a disk missing?`)
  await mkdirForAll(systemDir)
  await mkdir(home, { recursive: true })
  await chown(home, user.uid, user.gid)
  await chmod(home, 0o700)
  if (!target) {
    if (await exists(dataDir)) await setAside(dataDir, "no directory refers to it any more", log)
    await symlink(dataDir, data)
    log.info(
      `PostgreSQL must not run as root, and the user ${user.name} cannot reach ${dir}: the data goes to ${dataDir}, where ${data} links`,
    )
  }
  return { dataDir, user }
}

async function setAsideUnfinished(dataDir: string, log: Narrator): Promise<void> {
  if ((await exists(join(dataDir, "PG_VERSION"))) && (await exists(join(dataDir, "global", "pg_control"))))
    return
  if ((await readdir(dataDir)).length > 0) await setAside(dataDir, "it is no finished database", log)
  else await rm(dataDir, { recursive: true })
}

async function setAside(dataDir: string, why: string, log: Narrator): Promise<void> {
  const aside = `${dataDir}.aside-${Date.now()}`
  await rename(dataDir, aside)
  log.warn(`Moved ${dataDir} to ${aside}, because ${why}, and starting anew`)
}
