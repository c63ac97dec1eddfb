/** The database of a relay: where it is, and a line to a server that fits. All sessions begin here. */

import { lookup } from "node:dns/promises"
import { isIP, type Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import pg from "pg"
import { ConfigError } from "../config.ts"
import { BoundClient } from "./bound-client.ts"
import { ConninfoError } from "./conninfo.ts"
import { isLocal, openLine, TlsError } from "./line.ts"
import { type Host, type Login, readLogin } from "./login.ts"
import type { Tls } from "./tls-mode.ts"

/** No server fits that could be reached. Later one may. */
export class NoServerError extends Error {
  override name = "NoServerError"
}

/** What a driver says on a line that is open already, and encrypted if it is at all. */
export interface Greeting {
  user: string
  database: string
  application_name: string
  options?: string
  enableChannelBinding: boolean
  ssl: false
  sslnegotiation: "postgres"
}

/** How a driver begins a session on a line. */
export interface Dialled extends Greeting {
  host: string
  port: number
  password: () => string
  stream: () => Socket
}

interface Candidate {
  host: Host
  tls: Tls
}

/** Beside which a session's own patience is longer. Milliseconds. */
const PATIENCE_MS = 9_000
const SHUTTING_DOWN = "57P03"

/** The addresses of a name. */
type Resolve = (name: string) => Promise<string[]>

const resolveName: Resolve = async (name) => (await lookup(name, { all: true })).map(({ address }) => address)

export class Database {
  readonly #login: Login
  readonly #resolve: Resolve
  /** The open sessions, each with the server that it is on and the way to end it. */
  readonly #sessions = new Map<object, { server: string; end: (why: Error) => void }>()

  constructor(login: Login, resolve: Resolve = resolveName) {
    this.#login = login
    this.#resolve = resolve
  }

  /** @param name what PostgreSQL shows the session as, unless the connection string has another name. */
  greeting(name: string): Greeting {
    const { user, database, options, applicationName, channelBinding } = this.#login
    return {
      user,
      database,
      application_name: applicationName ?? name,
      ...(options === undefined ? {} : { options }),
      enableChannelBinding: channelBinding === "require",
      ssl: false,
      sslnegotiation: "postgres",
    }
  }

  /** Opens a line to the first server that fits. @throws what it said, or NoServerError that names all. */
  async dial(name: string): Promise<Dialled> {
    const candidates = this.#candidates(await this.#hosts())
    const patienceMs = Math.min(this.#login.timeoutMs ?? PATIENCE_MS, PATIENCE_MS / candidates.length)
    const failures: Failure[] = []
    for (const [n, candidate] of candidates.entries()) {
      const { host } = candidate
      try {
        const socket = await this.#open(candidate, patienceMs)
        return { ...this.greeting(name), ...this.#place(host), stream: () => socket }
      } catch (error) {
        failures.push({ host, error: error as Error })
        // Whoever answers and refuses is not passed over, unless it is for the encryption.
        const refused = error instanceof pg.DatabaseError && error.code !== SHUTTING_DOWN
        if (refused && candidates[n + 1]?.host !== host) break
      }
    }
    throw summary(failures)
  }

  /**
   * Notes that a session has begun. Where the name leads to another server than before, all that are on the one before end,
   * and are begun anew by those whose they are: half of a relay on each server would hear nothing of what it reads.
   * @returns what takes the note back, once the session has ended.
   */
  begun(server: string, end: (why: Error) => void): () => void {
    for (const other of this.#sessions.values())
      if (other.server !== server) other.end(new Error("the database is another server than before"))
    const session = {}
    this.#sessions.set(session, { server, end })
    return () => this.#sessions.delete(session)
  }

  /** Where it matters which server answers, each address of a name is a host of its own: it may lead to several servers. */
  async #hosts(): Promise<readonly Host[]> {
    const hosts = this.#login.hosts()
    if (this.#login.wanted === "any") return hosts
    const all = hosts.map(async (host) => {
      if (isLocal(host) || isIP(host.address) !== 0) return [host]
      const late = sleep(PATIENCE_MS / 2, [], { ref: false })
      const addresses = await Promise.race([this.#resolve(host.address).catch(() => []), late])
      return addresses.length === 0 ? [host] : addresses.map((address) => ({ ...host, address }))
    })
    return (await Promise.all(all)).flat()
  }

  #candidates(hosts: readonly Host[]): Candidate[] {
    const { tls } = this.#login
    const off: Tls = { kind: "off" }
    return hosts.flatMap((host): Candidate[] => {
      if (isLocal(host)) return [{ host, tls: off }]
      if (tls.kind !== "optional") return [{ host, tls }]
      const plain = { host, tls: off }
      if (tls.first === "tls") return [{ host, tls }, plain]
      return [plain, { host, tls: { kind: "required", direct: false, options: tls.options } }]
    })
  }

  #place(host: Host): Pick<Dialled, "host" | "port" | "password"> {
    return { host: host.name, port: host.port, password: () => this.#login.password(host) }
  }

  async #open({ host, tls }: Candidate, patienceMs: number): Promise<Socket> {
    const { wanted, channelBinding, tls: whole } = this.#login
    const open = () => openLine(host, tls, patienceMs)
    const { socket, encrypted } = await open()
    if (channelBinding === "require" && !encrypted) {
      socket.destroy()
      throw new TlsError(
        "channel_binding=require needs an encrypted line, and this is none: set sslmode=require",
      )
    }
    // Where something else would be tried next, only a whole session shows whether it is necessary.
    const settled = isLocal(host) || whole.kind !== "optional" || (tls.kind === "optional" && !encrypted)
    if (settled && wanted === "any" && this.#login.hosts().length === 1) return socket
    await this.#probe(host, socket, patienceMs)
    return (await open()).socket
  }

  /** Begins a session and ends it. @throws if the server lets nobody in, or is another than was wanted. */
  async #probe(host: Host, socket: Socket, patienceMs: number): Promise<void> {
    const client = new BoundClient({
      ...this.greeting("commitcast"),
      ...this.#place(host),
      stream: () => socket,
      connectionTimeoutMillis: patienceMs,
    })
    client.on("error", () => {})
    const status = new Map<unknown, unknown>()
    client.connection.on("parameterStatus", ({ parameterName, parameterValue }) => {
      status.set(parameterName, parameterValue)
    })
    try {
      await client.connect()
    } finally {
      await client.end().catch(() => {})
    }
    const { wanted } = this.#login
    if (wanted === "any") return
    if (status.get("in_hot_standby") !== "off") throw new NoServerError("is a standby")
    if (wanted === "read-write" && status.get("default_transaction_read_only") !== "off")
      throw new NoServerError("takes no writes")
  }
}

interface Failure {
  host: Host
  error: Error
}

/** One error says what the whole is about; several of several hosts are named. */
function summary(failures: readonly Failure[]): Error {
  const last = failures.at(-1) as Failure
  const [first] = failures.filter(({ host }) => host === last.host) as [Failure]
  if (last.error instanceof pg.DatabaseError && last.error.code !== SHUTTING_DOWN) return first.error
  const several = failures.some(({ host }) => host !== last.host)
  if (!several && !(first.error instanceof NoServerError)) return first.error
  const all = failures.map(({ host, error }) => `${host.name}:${host.port}: ${wordsOf(error)}`)
  return new NoServerError(all.join("; "), { cause: first.error })
}

/** Of a name with several addresses each has its own error, and the whole has no words. */
const wordsOf = (error: Error): string =>
  error instanceof AggregateError ? error.errors.map((one: Error) => one.message).join(", ") : error.message

/** @throws ConfigError if the connection string asks for what is wrong, or cannot be done here. */
export function openDatabase(
  url: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Database {
  try {
    return new Database(readLogin(url, env))
  } catch (error) {
    if (error instanceof ConninfoError)
      throw new ConfigError(`DATABASE_URL (--database-url) is wrong: ${error.message}`, { cause: error })
    throw error
  }
}
