/** `commitcast start`: the composition root. Database, relay in one process or several, signals. */

import { availableParallelism } from "node:os"
import type { Command } from "commander"
import type { Settings } from "../../relay/config.ts"
import { checkAuditLog } from "../../relay/gateway/audit-file.ts"
import { roomForSockets } from "../../relay/lib/descriptors.ts"
import { createRelay } from "../../relay/relay.ts"
import { createLog, type Log } from "../../relay/telemetry/log.ts"
import { LogOutput } from "../../relay/telemetry/log-output.ts"
import { type Embedded, openEmbedded } from "../embedded/embedded.ts"
import { readSecrets } from "../embedded/secrets.ts"
import { writeState } from "../embedded/state.ts"
import { connect } from "../schema/database.ts"
import { readElectionSchema } from "../schema/migrations.ts"
import { installWhenReachable } from "../schema/prepare.ts"
import { openServer, type Service } from "../serve/server.ts"
import { welcome } from "../serve/welcome.ts"
import { openWorkers } from "../serve/workers.ts"
import { packageVersion } from "../version.ts"
import { ALL_SETTINGS, addCommand } from "./arguments.ts"
import { watchParent } from "./parent.ts"
import { changedSettings, settingsOf } from "./settings.ts"
import { signToken } from "./token.ts"

/** A relay that is ready, for what runs beside it. */
export interface Running {
  databaseUrl: string
  url: string
  /** Stops it as a signal would, and runs another in its place. */
  restart(): Promise<void>
  stop(): void
  /** It stops. */
  signal: AbortSignal
}
export type Companion = (running: Running) => Promise<void>

/** Of one Ctrl-C the terminal and npm may each send a signal. Milliseconds. */
const ECHO_MS = 500

/** Runs the relay until a signal ends it. @throws ConfigError if it cannot start as it is set up. */
export async function start(given: Readonly<Settings>, companion: Companion = async () => {}): Promise<void> {
  checkAuditLog(given.AUDIT_LOG)
  const logOutput = new LogOutput()
  const log = createLog(given, logOutput)
  const stopped = new AbortController()
  let embedded: Embedded | undefined
  let service: Service | undefined
  let failure: unknown
  // Before there is anything that a signal could leave behind.
  onSignals(log, stopped)
  const changed = changedSettings(given)
  if (Object.keys(changed).length > 0)
    log.info({ event: "settings", ...changed }, "the settings that are not as by default")
  try {
    if (given.DATABASE_URL === undefined) embedded = await openDefault(given, log)
    const databaseUrl = embedded?.databaseUrl ?? (given.DATABASE_URL as string)
    const settings = withinDescriptors(
      embedded === undefined ? given : { ...given, ...(await embeddedKeys(given)) },
      log,
    )
    const deps = { settings, databaseUrl, version: packageVersion(), log, logOutput }
    const size = settings.WORKERS === "auto" ? availableParallelism() : settings.WORKERS
    const open = (port: number): Service => {
      const its = { ...deps, settings: { ...settings, PORT: port } }
      return size === 1 ? openServer(createRelay(its), its.settings) : openWorkers({ ...its, size })
    }
    service = open(settings.PORT)
    const url = await service.listen()
    log.info({ event: "http_up", url }, "HTTP answers; not ready yet")
    void embedded?.exited.then(({ expected }) => {
      if (expected) return
      failure = new Error("the embedded PostgreSQL has ended by itself")
      stopped.abort()
    })
    if (embedded !== undefined) await createElection(databaseUrl)
    await installWhenReachable(databaseUrl, log, stopped.signal)
    if (!stopped.signal.aborted) {
      service.start()
      await Promise.race([service.whenReady(), aborted(stopped.signal)])
    }
    if (!stopped.signal.aborted) {
      await announce(url, settings, embedded)
      const restart = async () => {
        await service?.stop()
        service = open(Number(new URL(url).port))
        await service.listen()
        service.start()
        await Promise.race([service.whenReady(), aborted(stopped.signal)])
      }
      await companion({ databaseUrl, url, restart, stop: () => stopped.abort(), signal: stopped.signal })
    }
    await aborted(stopped.signal)
  } catch (error) {
    if (!stopped.signal.aborted) failure = error
  }
  await service?.stop()
  await embedded?.stop()
  if (failure !== undefined) throw failure
  log.info({ event: "stopped" }, "stopped")
}

async function openDefault(settings: Readonly<Settings>, log: Log): Promise<Embedded> {
  return openEmbedded({
    dir: settings.COMMITCAST_DIR,
    log: {
      info: (message) => log.info({ event: "embedded" }, message),
      warn: (message) => log.warn({ event: "embedded" }, message),
    },
  })
}

/** The embedded default signs and checks tokens with its own secret unless a key is set. */
async function embeddedKeys(settings: Readonly<Settings>): Promise<Pick<Settings, "JWT_SECRET"> | object> {
  const { JWT_SECRET, JWT_PUBLIC_KEY, JWKS_URL } = settings
  if (JWT_SECRET !== undefined || JWT_PUBLIC_KEY !== undefined || JWKS_URL !== undefined) return {}
  return { JWT_SECRET: (await readSecrets(settings.COMMITCAST_DIR)).jwt_secret }
}

/** No process lets in more clients than it has file descriptors for beside its own. */
function withinDescriptors(settings: Readonly<Settings>, log: Log): Readonly<Settings> {
  const room = roomForSockets()
  const { MAX_CONNECTIONS: wanted } = settings
  if (room === undefined || (wanted > 0 && wanted <= room.clients)) return settings
  log.info(
    { event: "connections_bounded", descriptors: room.descriptors, max_connections: room.clients },
    "ulimit -n leaves room for fewer clients than MAX_CONNECTIONS",
  )
  return { ...settings, MAX_CONNECTIONS: room.clients }
}

function onSignals(log: Log, stopped: AbortController): void {
  let firstAt = 0
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (!stopped.signal.aborted) {
        firstAt = performance.now()
        log.info({ event: "stopping", signal }, "stopping; once more to stop at once")
        return stopped.abort()
      }
      if (performance.now() - firstAt > ECHO_MS) process.exit(1)
    })
  }
  watchParent(() => {
    if (stopped.signal.aborted) return
    log.info({ event: "stopping", signal: null }, "npm has ended; stopping")
    stopped.abort()
  })
}

const aborted = (signal: AbortSignal): Promise<void> =>
  signal.aborted
    ? Promise.resolve()
    : new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }))

async function createElection(databaseUrl: string): Promise<void> {
  const client = await connect(databaseUrl)
  try {
    const there = await client.query("select to_regclass('public.election') as there")
    if (there.rows[0]?.there === null)
      await client.query(
        `begin; set local search_path = public, pg_temp; ${await readElectionSchema()} commit`,
      )
  } finally {
    await client.end()
  }
}

/** A few lines for people, and one for programs on standard output. */
async function announce(
  url: string,
  settings: Readonly<Settings>,
  embedded: Embedded | undefined,
): Promise<void> {
  const ready = {
    event: "ready",
    url,
    ...(embedded === undefined ? {} : { database_url: embedded.databaseUrl }),
  }
  if (embedded !== undefined) await writeState(settings.COMMITCAST_DIR, { relay_url: url })
  const token =
    embedded === undefined || settings.JWT_SECRET === undefined
      ? undefined
      : signToken(settings.JWT_SECRET, settings, { user: "1", admin: true, expires: "12h" })
  process.stderr.write(welcome({ url, databaseUrl: embedded?.databaseUrl, token }))
  process.stdout.write(`${JSON.stringify(ready)}\n`)
}

export function addStart(program: Command): void {
  const summary = "run the relay; without DATABASE_URL with a PostgreSQL of its own"
  addCommand(program, "start", summary, ALL_SETTINGS).action((options) => start(settingsOf(options)))
}
