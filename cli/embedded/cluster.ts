/** Owns one PostgreSQL cluster: makes it, runs it as a child, stops it, and tells when it dies by itself. */

import { spawn } from "node:child_process"
import { chmod, chown, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { ClusterError, codeOf } from "./errors.ts"
import { besideData, lastLines, openJournal } from "./journal.ts"
import { freePort } from "./port.ts"
import { readPidFile } from "./postmaster.ts"
import { processStart } from "./process.ts"
import { canReach, programIn, type RunAs, run, serverVersion, surroundings } from "./program.ts"

const POLL_MS = 20 // short against the 300 ms a start takes
const WATCH_MS = 200 // an adopted server is no child, so its end is seen by looking
const START_TIMEOUT_MS = 60_000 // crash recovery of a busy laptop database fits in it
const ORPHANS_MS = 15_000 // how long backends of a killed server may still hold its shared memory
const STOP_TIMEOUT_MS = 30_000 // a fast shutdown ends with a checkpoint; after this it is cut short

export type StopMode = "smart" | "fast" | "immediate"
const SIGNAL = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const
const STRENGTH: Record<StopMode, number> = { smart: 0, fast: 1, immediate: 2 }

export interface ClusterExit {
  /** False when nobody had called stop. */
  expected: boolean
  /** Both null for an adopted server, whose status only its first parent could read. */
  code: number | null
  signal: string | null
  /** The last lines of the server's log. */
  log: string
}

export interface Cluster {
  readonly pid: number
  readonly port: number
  /** Settles once, when the server is gone for whatever reason; never rejects. */
  readonly exited: Promise<ClusterExit>
  /** Idempotent; default fast. A second call with a stronger mode is passed on to the server. */
  stop(options?: { mode?: StopMode }): Promise<void>
}

/** The port that was asked for belongs to another program: ask for another one or none. */
export class PortTakenError extends ClusterError {
  override name = "PortTakenError"
}

export interface InitOptions {
  /** Directory with initdb and postgres. */
  binDir: string
  dataDir: string
  /** Of the superuser `postgres`. */
  password: string
  /** Default: nobody special, or as root the first of the users postgres and nobody. */
  user?: RunAs | undefined
  initdbArgs?: string[]
}

export interface StartOptions {
  binDir: string
  dataDir: string
  /** Default: `postgres.log` beside the data. */
  logFile?: string
  /** Default: a free one. */
  port?: number
  settings?: Record<string, string | number>
  /** Default: as root, the owner of the data. */
  user?: RunAs | undefined
}

/** The user to run PostgreSQL as: undefined when this process may do it itself. */
export async function serverUser(): Promise<RunAs | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const users = (await readFile("/etc/passwd", "utf8")).split("\n").map((line) => line.split(":"))
  const user = users.find(([name]) => name === "postgres") ?? users.find(([name]) => name === "nobody")
  if (!user)
    throw new ClusterError(
      "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as",
    )
  return { name: user[0] ?? "", uid: Number(user[2]), gid: Number(user[3]) }
}

/** As root, the user whom existing data belongs to; otherwise undefined. */
export async function dataOwner(dataDir: string): Promise<RunAs | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const { uid, gid } = await stat(dataDir)
  if (uid === 0)
    throw new ClusterError(
      `${dataDir} belongs to root, as whom PostgreSQL refuses to run: chown -R it to another user`,
    )
  return { name: `uid ${uid}`, uid, gid }
}

/**
 * Makes an empty UTF8 cluster that needs no locale of the machine. It appears at dataDir whole or not at all; an
 * attempt that was killed leaves only a directory `<dataDir>.new-*`.
 */
export async function initCluster({
  binDir,
  dataDir,
  password,
  user,
  initdbArgs = [],
}: InitOptions): Promise<void> {
  const runAs = user ?? (await serverUser())
  const parent = dirname(dataDir)
  await mkdir(parent, { recursive: true })
  if (runAs && !(await canReach(runAs, parent))) {
    throw new ClusterError(
      `The user ${runAs.name} cannot reach ${parent}, and PostgreSQL refuses to run as root`,
    )
  }
  const draft = await mkdtemp(join(parent, `${basename(dataDir)}.new-`))
  const passwordFile = join(draft, "password")
  try {
    await writeFile(passwordFile, `${password}\n`, { mode: 0o600, flag: "wx" })
    if (runAs) for (const path of [draft, passwordFile]) await chown(path, runAs.uid, runAs.gid)
    const made = join(draft, "data")
    const major = Number.parseInt(await serverVersion(binDir, runAs), 10)
    // From 17 on PostgreSQL brings its own UTF-8 rules; before, C knows upper and lower case of ASCII only.
    const locale = major >= 17 ? ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] : []
    const args = [
      "-D",
      made,
      "-U",
      "postgres",
      "--encoding=UTF8",
      "--locale=C",
      ...locale,
      "--auth=scram-sha-256",
    ]
    args.push(`--pwfile=${passwordFile}`, "--no-instructions", ...initdbArgs)
    await run(programIn(binDir, "initdb"), args, binDir, runAs)
    await chmod(made, 0o700)
    await rename(made, dataDir)
  } catch (error) {
    if (error instanceof ClusterError) throw error
    throw new ClusterError(`initdb failed: ${lastWords(error)}`, { cause: error })
  } finally {
    await rm(draft, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** Starts the server and waits until it answers on 127.0.0.1. It is the caller's to stop. */
export async function startCluster(options: StartOptions): Promise<Cluster> {
  const user = options.user ?? (await dataOwner(options.dataDir))
  const deadline = Date.now() + ORPHANS_MS
  for (;;) {
    try {
      return await startOnce({ ...options, user }, options.port ?? (await freePort()))
    } catch (error) {
      const message = error instanceof Error ? error.message : ""
      const stolen = error instanceof PortTakenError && options.port === undefined // between finding it free and using it
      if (!(stolen || message.includes("pre-existing shared memory block")) || Date.now() > deadline)
        throw error
      await sleep(POLL_MS * 5)
    }
  }
}

/** Takes charge of a server that another process started and left running, as found by findServer. */
export function adoptCluster(options: {
  binDir: string
  dataDir: string
  logFile?: string
  pid: number
  port: number
}): Cluster {
  const { binDir, pid, port } = options
  const exit = watch(pid)
  return control({
    pid,
    port,
    exit,
    binDir,
    logFile: options.logFile ?? besideData(options.dataDir),
    logFrom: 0,
  })
}

async function startOnce(options: StartOptions, port: number): Promise<Cluster> {
  const { binDir, dataDir, user, logFile = besideData(dataDir) } = options
  const settings = {
    listen_addresses: "127.0.0.1",
    port,
    unix_socket_directories: "",
    logging_collector: "off",
    ...options.settings,
  }
  const args = [
    "-D",
    dataDir,
    ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
  ]
  const log = await openJournal(logFile)
  const logFrom = (await log.stat()).size
  const stdio: ["ignore", number, number] = ["ignore", log.fd, log.fd]
  // detached: a process group of its own, so that Ctrl-C reaches Node alone, which then stops the server in order
  const child = spawn(programIn(binDir, "postgres"), args, {
    ...surroundings(binDir, user),
    detached: true,
    stdio,
    windowsHide: true,
  })
  const exit = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once("exit", (code, signal) => resolve({ code, signal }))
    child.once("error", () => resolve({ code: null, signal: null }))
  })
  const failed = new Promise<unknown>((resolve) => child.once("error", resolve))
  await log.close()
  const { pid } = child
  if (pid === undefined)
    throw new ClusterError(`${binDir} holds no PostgreSQL that can be started`, { cause: await failed })

  const cluster = control({ pid, port, exit, binDir, logFile, logFrom })
  let over: ClusterExit | undefined
  void cluster.exited.then((end) => {
    over = end
  })
  const deadline = Date.now() + START_TIMEOUT_MS
  for (;;) {
    if (over) {
      if (/could not bind .*in use/i.test(over.log))
        throw new PortTakenError(`Port ${port} is taken by another program`)
      throw new ClusterError(`PostgreSQL did not start in ${dataDir}:\n${over.log}`)
    }
    const file = await readPidFile(dataDir)
    if (file?.pid === pid && file.status === "ready") return cluster
    if (Date.now() > deadline) {
      await cluster.stop({ mode: "immediate" })
      throw new ClusterError(
        `PostgreSQL did not answer within ${START_TIMEOUT_MS} ms in ${dataDir}: see ${logFile}`,
      )
    }
    await sleep(POLL_MS)
  }
}

interface Controlled {
  pid: number
  port: number
  exit: Promise<{ code: number | null; signal: string | null }>
  binDir: string
  logFile: string
  logFrom: number
}

function control({ pid, port, exit, binDir, logFile, logFrom }: Controlled): Cluster {
  let sent: StopMode | undefined
  let over = false
  const exited = exit.then(async (end): Promise<ClusterExit> => {
    over = true
    return { ...end, expected: sent !== undefined, log: await lastLines(logFile, logFrom) }
  })
  async function send(mode: StopMode): Promise<void> {
    if (over || (sent !== undefined && STRENGTH[mode] <= STRENGTH[sent])) return
    sent = mode
    if (process.platform === "win32")
      return void (await run(
        programIn(binDir, "pg_ctl"),
        ["kill", SIGNAL[mode].slice(3), String(pid)],
        binDir,
      ))
    try {
      process.kill(pid, SIGNAL[mode])
    } catch (error) {
      if (codeOf(error) !== "ESRCH") throw error // else it died a moment ago, and exited is about to say so
    }
  }
  async function stop({ mode = "fast" }: { mode?: StopMode } = {}): Promise<void> {
    await send(mode)
    // smart waits for the clients, however long; that is its meaning
    const timer = mode === "smart" ? undefined : setTimeout(() => void send("immediate"), STOP_TIMEOUT_MS)
    await exited
    clearTimeout(timer)
  }
  return { pid, port, exited, stop }
}

async function watch(pid: number): Promise<{ code: null; signal: null }> {
  const life = await processStart(pid)
  while (life && (await processStart(pid)) === life) await sleep(WATCH_MS)
  return { code: null, signal: null }
}

function lastWords(error: unknown): string {
  if (error instanceof Error && "stderr" in error && typeof error.stderr === "string" && error.stderr)
    return error.stderr.trim()
  return error instanceof Error ? error.message : String(error)
}
