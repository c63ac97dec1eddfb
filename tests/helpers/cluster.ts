/** A PostgreSQL server of the test's own, for tests that stop, kill, copy and promote it. */

import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { chmod, chown, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import pg from "pg"
import type { Test } from "tap"
import { placeBinaries } from "../../cli/embedded/binaries.ts"
import { type Cluster, initCluster, serverUser, startCluster } from "../../cli/embedded/cluster.ts"
import { freePort } from "../../cli/embedded/port.ts"
import { install } from "../../cli/schema/install.ts"
import { readElectionSchema } from "../../cli/schema/migrations.ts"
import { fakedServer } from "./faketime.ts"
import { DEBIAN_15, hasVersion, type Version } from "./servers.ts"

const execute = promisify(execFile)

export type Settings = Record<string, string | number>

export interface OwnCluster {
  readonly port: number
  readonly dataDir: string
  /** As a role that is no superuser, to a database with the election schema under capture. */
  readonly url: string
  readonly superuserUrl: string
  stop(mode: "fast" | "immediate"): Promise<void>
  /** Again, on the same port and data. */
  start(more?: Settings): Promise<void>
  /** kill -9 of the postmaster and all its processes at once. */
  kill(): Promise<void>
  /** The data as it lies there, as another server on another port, not started. */
  copy(): Promise<OwnCluster>
  /** Puts the data of another in place of its own; both are stopped. */
  replaceBy(other: OwnCluster): Promise<void>
  /** Makes a primary of a standby, and waits for it. */
  promote(): Promise<void>
  /** A base backup of the running server, as another server on another port, not started; a standby of this one if asked. */
  baseBackup(options?: { standby?: boolean }): Promise<OwnCluster>
}

/** The reason to skip tests that make a cluster of that version, or false. */
export const noBinaries = (version: Version): string | false =>
  hasVersion(version) ? false : `no PostgreSQL ${version} on this machine`

/** Makes one, removed with the test. @param clock the file that sets its clock, see faketime.ts. */
export async function ownCluster(
  t: Test,
  settings: Settings = {},
  version: Version = "18",
  clock?: string,
): Promise<OwnCluster> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-cluster-"))
  await chmod(home, 0o755)
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const binDir =
    version === "15" ? DEBIAN_15 : await placeBinaries({ log: { info() {} }, systemDir: join(home, "bin") })
  const dataDir = join(home, "data")
  await initCluster({ binDir, dataDir, password: "tests", initdbArgs: ["--no-sync"] })
  const serverDir = clock === undefined ? binDir : await fakedServer(binDir, join(home, "faked"), clock)
  const cluster = await control({ t, home, binDir: serverDir, dataDir, settings })
  await cluster.start()
  await execSql(
    cluster.superuserUrl,
    "create role app login password 'tests'",
    "create database election owner app",
  )
  await execSql(cluster.url, await readElectionSchema())
  await install(cluster.url)
  await execSql(cluster.url, "delete from relay.derived")
  return cluster
}

/** Runs statements, each in a transaction of its own, in a session of their own. @returns the rows of the last. */
export async function execSql<Row extends pg.QueryResultRow = Record<string, unknown>>(
  url: string,
  ...statements: string[]
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url })
  client.on("error", () => {})
  await client.connect()
  try {
    let rows: Row[] = []
    for (const statement of statements) rows = (await client.query<Row>(statement)).rows
    return rows
  } finally {
    await client.end()
  }
}

interface Place {
  t: Test
  home: string
  binDir: string
  dataDir: string
  settings: Settings
}

async function control(place: Place): Promise<OwnCluster> {
  const { t, home, binDir, dataDir, settings } = place
  const port = await freePort()
  const superuserUrl = `postgres://postgres:tests@127.0.0.1:${port}/postgres`
  let server: Cluster | undefined
  const running = (): Cluster => {
    if (server === undefined) throw new Error("the cluster was never started")
    return server
  }
  t.teardown(() => server?.stop({ mode: "immediate" }))

  async function newDirectory(): Promise<string> {
    const parent = await mkdtemp(join(home, "copy-"))
    await chmod(parent, 0o755)
    return join(parent, "data")
  }

  async function backUp(target: string): Promise<void> {
    const session = new pg.Client({ connectionString: superuserUrl })
    await session.connect()
    try {
      await session.query("select pg_backup_start('copy', true)")
      await copyData(dataDir, target)
      const { rows } = await session.query("select labelfile from pg_backup_stop(false)")
      await writeAsOwner(join(target, "backup_label"), rows[0].labelfile)
      await rm(join(target, "pg_wal"), { recursive: true })
      await execute("cp", ["-a", join(dataDir, "pg_wal"), join(target, "pg_wal")])
    } finally {
      await session.end()
    }
  }

  return {
    port,
    dataDir,
    url: `postgres://app:tests@127.0.0.1:${port}/election`,
    superuserUrl,
    stop: (mode) => running().stop({ mode }),
    async start(more = {}) {
      server = await startCluster({ binDir, dataDir, port, settings: { ...settings, ...more } })
    },
    async kill() {
      const { pid, exited } = running()
      const processes = [pid, ...(await childrenOf(pid))]
      for (const one of processes) {
        try {
          process.kill(one, "SIGKILL")
        } catch (error) {
          // It ended by itself, or with the server.
          if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error
        }
      }
      await exited
    },
    async copy() {
      const target = await newDirectory()
      await copyData(dataDir, target)
      return control({ ...place, dataDir: target })
    },
    async replaceBy(other) {
      await rm(dataDir, { recursive: true })
      await copyData(other.dataDir, dataDir)
    },
    async promote() {
      await execSql(superuserUrl, "select pg_promote(true, 60)")
    },
    async baseBackup({ standby = false } = {}) {
      const target = await newDirectory()
      let more: Settings = {}
      if (existsSync(join(binDir, "pg_basebackup"))) {
        const args = ["-D", target, "-d", superuserUrl, "-c", "fast", "--no-sync", ...(standby ? ["-R"] : [])]
        await execute(join(binDir, "pg_basebackup"), args)
        await execute("chown", ["-R", "--reference", dataDir, target])
      } else {
        await backUp(target)
        if (standby) {
          await writeAsOwner(join(target, "standby.signal"), "")
          more = {
            primary_conninfo: `host=127.0.0.1 port=${port} user=postgres password=tests`,
          }
        }
      }
      return control({ ...place, dataDir: target, settings: { ...settings, ...more } })
    },
  }
}

/** All but what says that a server runs there. */
async function copyData(from: string, to: string): Promise<void> {
  await execute("cp", ["-a", from, to])
  for (const name of ["postmaster.pid", "postmaster.opts"]) await rm(join(to, name), { force: true })
}

async function writeAsOwner(path: string, text: string): Promise<void> {
  await writeFile(path, text, { mode: 0o600 })
  const user = await serverUser()
  if (user !== undefined) await chown(path, user.uid, user.gid)
}

async function childrenOf(parent: number): Promise<number[]> {
  const found: number[] = []
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue
    const line = await readFile(`/proc/${name}/stat`, "utf8").catch(() => "")
    const fields = line.slice(line.lastIndexOf(")") + 2).split(" ") // the name before it may hold blanks
    if (Number(fields[1]) === parent) found.push(Number(name))
  }
  return found
}
