/** A login: what a connection string, the service file and the environment say together, as libpq would take it. */

import { existsSync } from "node:fs"
import { userInfo } from "node:os"
import { type Conninfo, ConninfoError, KEYWORDS, parseConninfo } from "./conninfo.ts"
import { type Environment, homeFile, readPassword, readService } from "./libpq-files.ts"
import { readTls, type Tls } from "./tls-mode.ts"
import { oneOf, type Values } from "./values.ts"

/** A server to try. */
export interface Host {
  /** As it was written: what a certificate and a password file know it by. A path is the directory of a Unix socket. */
  readonly name: string
  /** Where it is reached. */
  readonly address: string
  readonly port: number
}

export interface Login {
  /** In the order in which they are tried. */
  hosts(): readonly Host[]
  readonly tls: Tls
  /** Whether the server must take writes, or be a primary; any may be either. */
  readonly wanted: "any" | "read-write" | "primary"
  readonly user: string
  readonly database: string
  readonly options: string | undefined
  readonly applicationName: string | undefined
  readonly channelBinding: "disable" | "prefer" | "require"
  /** Of one host, in milliseconds. */
  readonly timeoutMs: number | undefined
  /** @throws Error that says where it could be, if there is none. */
  password(host: Host): string
}

const DEFAULT_PORT = 5432
const SOCKET_DIRECTORIES = ["/var/run/postgresql", "/tmp"]

/** @throws ConninfoError that says what is wrong, or what cannot be done here. */
export function readLogin(text: string, env: Environment): Login {
  const given = complete(parseConninfo(text), env)
  refuseWhatIsNotDone(given)
  const value = (keyword: string) => given.get(keyword) || undefined
  const user = value("user") ?? userInfo().username
  const database = value("dbname") ?? user
  const hosts = readHosts(value)
  const random = oneOf(value, "load_balance_hosts", ["disable", "random"]) === "random"
  const seconds = readNumber(value, "connect_timeout", 0, 2_147_483)
  const passfile = value("passfile") ?? homeFile(".pgpass")
  return {
    hosts: () => (random ? shuffled(hosts) : hosts),
    tls: readTls(value),
    wanted: readWanted(value),
    user,
    database,
    options: value("options"),
    applicationName: value("application_name"),
    channelBinding: oneOf(value, "channel_binding", ["prefer", "disable", "require"]),
    timeoutMs: seconds === undefined || seconds === 0 ? undefined : Math.max(2, seconds) * 1_000,
    password({ name, port }) {
      const password = value("password") ?? readPassword(passfile, { host: name, port, database, user })
      if (password !== undefined) return password
      throw new Error(
        `the server asks for a password, and there is none: put it into DATABASE_URL, PGPASSWORD or ${passfile}`,
      )
    },
  }
}

/** What the string does not say, the service says, and what neither says, the environment. */
function complete(given: Conninfo, env: Environment): Map<string, string> {
  const all = new Map(given)
  const fill = (more: Conninfo) => {
    for (const [keyword, value] of more) if (!all.has(keyword)) all.set(keyword, value)
  }
  const service = given.get("service") ?? env.PGSERVICE
  if (service) fill(readService(service, given.get("servicefile") ?? (env.PGSERVICEFILE || undefined), env))
  for (const [keyword, name] of KEYWORDS) {
    const value = name === undefined ? undefined : env[name]
    if (value) fill(new Map([[keyword, value]]))
  }
  return all
}

/** What would be less than was asked for if it were passed over. */
function refuseWhatIsNotDone(given: Conninfo): void {
  // As where a variable that was to stand there is not set. The environment's would be passed over as well.
  for (const keyword of ["sslmode", "channel_binding"])
    if (given.get(keyword) === "") throw new ConninfoError(`has an empty ${keyword}: set it, or remove it`)
  const without = new Map([["gssencmode", ["disable", "prefer"]]])
  for (const keyword of [
    "require_auth",
    "requirepeer",
    "gssencmode",
    "scram_client_key",
    "scram_server_key",
    "replication",
  ]) {
    const value = given.get(keyword) ?? ""
    if (value !== "" && !without.get(keyword)?.includes(value))
      throw new ConninfoError(`has a ${keyword} that is not known here: remove it`)
  }
}

function readWanted(values: Values): Login["wanted"] {
  const wanted = oneOf(values, "target_session_attrs", [
    "any",
    "read-write",
    "primary",
    "read-only",
    "standby",
    "prefer-standby",
  ])
  if (wanted === "any" || wanted === "read-write" || wanted === "primary") return wanted
  throw new ConninfoError(
    `has target_session_attrs=${wanted}, but NOTIFY does not reach a standby: use read-write or primary`,
  )
}

function readHosts(values: Values): Host[] {
  const list = (keyword: string) => values(keyword)?.split(",") ?? []
  const [names, addresses, ports] = [list("host"), list("hostaddr"), list("port")]
  const count = Math.max(names.length, addresses.length, 1)
  if (names.length > 0 && addresses.length > 0 && names.length !== addresses.length)
    throw new ConninfoError("has not as many hosts in hostaddr as in host")
  if (ports.length > 1 && ports.length !== count) throw new ConninfoError("has not as many ports as hosts")
  return Array.from({ length: count }, (_, n) => {
    const port = readPort(ports.length > 1 ? ports[n] : ports[0])
    const name = names[n] || addresses[n] || usualHost(port)
    return { name, address: addresses[n] || name, port }
  })
}

/** libpq's own is made into it; most have one of these. */
function usualHost(port: number): string {
  const directory = SOCKET_DIRECTORIES.find((path) => existsSync(socketIn(path, port)))
  return directory ?? "localhost"
}

/** The path of a server's socket. An @ stands for the abstract name space of Linux. */
export const socketIn = (directory: string, port: number): string =>
  `${directory.replace(/^@/, "\0")}/.s.PGSQL.${port}`

function readPort(text: string | undefined): number {
  if (text === undefined || text === "") return DEFAULT_PORT
  const port = Number(text)
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw new ConninfoError("has a port that is no number from 1 to 65535")
  return port
}

function readNumber(values: Values, keyword: string, least: number, most: number): number | undefined {
  const text = values(keyword)
  if (text === undefined) return undefined
  const number = Number(text)
  if (!Number.isInteger(number) || number > most)
    throw new ConninfoError(`has a ${keyword} that is no whole number`)
  return Math.max(least, number)
}

function shuffled<Item>(items: readonly Item[]): Item[] {
  const rest = [...items]
  for (let n = rest.length - 1; n > 0; n--) {
    const other = Math.floor(Math.random() * (n + 1))
    ;[rest[n], rest[other]] = [rest[other] as Item, rest[n] as Item]
  }
  return rest
}
