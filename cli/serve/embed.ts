/** A relay inside a program's own HTTP server: what `import ... from "commitcast"` has. */

import type { IncomingMessage, Server, ServerResponse } from "node:http"
import { ConfigError, environmentOf, optionOf, readSettings, Settings } from "../../relay/config.ts"
import { checkAuditLog } from "../../relay/gateway/audit-file.ts"
import { createRelay as wireRelay } from "../../relay/relay.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { LogOutput } from "../../relay/telemetry/log-output.ts"
import { installWhenReachable } from "../schema/prepare.ts"
import { packageVersion } from "../version.ts"

export { ConfigError } from "../../relay/config.ts"

/** What belongs to a process that has the server to itself. */
const NOT_HERE = ["COMMITCAST_DIR", "HOST", "PORT", "WORKERS", "METRICS_TOKEN"] as const
type NotHere = (typeof NOT_HERE)[number]

type OptionOf<Name extends string> = Name extends `${infer First}_${infer Rest}`
  ? `${Lowercase<First>}${Capitalize<OptionOf<Rest>>}`
  : Lowercase<Name>

/**
 * The settings of the command line, each by its name as an option: JWT_SECRET is `jwtSecret`. What is left out or undefined is as
 * by default; nothing is read from the environment.
 */
export type RelayOptions = {
  [Name in Exclude<keyof Settings, NotHere | "DATABASE_URL"> as OptionOf<Name>]?: Settings[Name] | undefined
} & {
  /** The database to relay from. */
  databaseUrl: string | undefined
}

/** How a relay stands. */
export interface RelayStatus {
  /** Clients are let in, and changes arrive. */
  ready: boolean
  /** Why not, in words. */
  problems: string[]
  connections: number
  /** Everything that was committed longer ago was delivered. */
  lagSeconds: number
}

export interface Relay {
  /** Takes the WebSocket upgrades of a server. Requests stay the program's. */
  attach(server: Server): void
  /**
   * Answers a plain request for the socket's path: with what an upgrade would come to, which browsers do not show.
   * @returns false if it is for another path, which is then not answered.
   */
  answer(request: IncomingMessage, response: ServerResponse): boolean
  /**
   * Installs the relay's schema if it is missing, and begins to relay. A database that does not answer is waited for. Resolves
   * once clients can connect and changes arrive, or when it is stopped.
   * @throws ConfigError if it cannot work with this database.
   */
  start(): Promise<void>
  status(): RelayStatus
  /** The metrics, as Prometheus reads them. */
  metrics(): Promise<string>
  /** Closes the clients in order, then the database. The server stays the program's to close. Idempotent. */
  stop(): Promise<void>
}

/**
 * Makes a relay that does nothing yet.
 * @throws ConfigError that names the first wrong setting and says what it must be.
 */
export function createRelay(options: RelayOptions): Relay {
  const settings = settingsOf(options)
  const { DATABASE_URL: databaseUrl } = settings
  if (databaseUrl === undefined)
    throw new ConfigError("DATABASE_URL (databaseUrl) is missing: the database to relay from")
  const { log, relay } = namingOptions(() => {
    checkAuditLog(settings.AUDIT_LOG)
    const logOutput = new LogOutput()
    const log = createLog(settings, logOutput)
    return { log, relay: wireRelay({ settings, databaseUrl, version: packageVersion(), log, logOutput }) }
  })
  const stopped = new AbortController()
  let starting: Promise<void> | undefined
  let stopping: Promise<void> | undefined

  async function begin(): Promise<void> {
    await installWhenReachable(databaseUrl as string, log, stopped.signal)
    if (stopped.signal.aborted) return
    relay.start()
    await relay.whenReady()
  }

  async function end(): Promise<void> {
    stopped.abort()
    await relay.stop()
    await starting?.catch(() => {})
  }

  return {
    attach: relay.attach,
    answer: relay.answer,
    start() {
      starting ??= begin()
      return starting
    },
    status() {
      const { ready, problems, hub, lagMs } = relay.status()
      return { ready, problems, connections: hub.connections, lagSeconds: lagMs / 1_000 }
    },
    metrics: relay.exposition,
    stop() {
      stopping ??= end()
      return stopping
    },
  }
}

function settingsOf(options: RelayOptions): Readonly<Settings> {
  const names = Object.keys(Settings.shape).filter((name) => !NOT_HERE.some((other) => other === name))
  const settings = new Map(names.map((name) => [optionOf(name), name]))
  const given = Object.entries(options).map(([option, value]): [string, unknown] => {
    const name = settings.get(option)
    if (name === undefined) throw new ConfigError(`${option} is no setting of a relay within a program`)
    return [name, value]
  })
  return namingOptions(() => readSettings(environmentOf(Object.fromEntries(given))))
}

/** A program knows a setting by its option, not by its flag. */
function namingOptions<T>(make: () => T): T {
  try {
    return make()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new ConfigError(
      error.message.replace(
        /([A-Z][A-Z_]+) \(--[a-z-]+\)/g,
        (_, name: string) => `${name} (${optionOf(name)})`,
      ),
      { cause: error },
    )
  }
}
