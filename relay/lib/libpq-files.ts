/** The files of libpq in which settings of a connection may lie: the service file and the password file. */

import { existsSync, readFileSync, statSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"
import { type Conninfo, ConninfoError, put } from "./conninfo.ts"

export type Environment = Readonly<Record<string, string | undefined>>

/** Where libpq keeps what belongs to a person. */
export const homeFile = (name: string): string =>
  process.platform === "win32"
    ? join(process.env.APPDATA ?? homedir(), "postgresql", name.replace(/^\.(?:postgresql\/)?/, ""))
    : join(homedir(), name)

/**
 * The keywords of a service: from the person's file, else from the system's.
 * @throws ConninfoError if there is no such service, or its part of the file cannot be read.
 */
export function readService(service: string, file: string | undefined, env: Environment): Conninfo {
  const own = file ?? homeFile(".pg_service.conf")
  if (file !== undefined && !existsSync(file))
    throw new ConninfoError(`names the service file ${file}, which is not there`)
  const files = [own, ...(env.PGSYSCONFDIR ? [join(env.PGSYSCONFDIR, "pg_service.conf")] : [])]
  for (const path of files) {
    const found = existsSync(path) ? sectionOf(readText(path), service, path) : undefined
    if (found !== undefined) return found
  }
  throw new ConninfoError(`names the service ${service}, which is not in ${files.join(" or ")}`)
}

function sectionOf(text: string, service: string, path: string): Conninfo | undefined {
  let found: Map<string, string> | undefined
  for (const [n, raw] of text.split("\n").entries()) {
    const line = raw.trim()
    if (line === "" || line.startsWith("#")) continue
    if (line.startsWith("[")) {
      if (found !== undefined) return found
      if (line === `[${service}]`) found = new Map()
    } else if (found !== undefined) {
      const [, keyword = "", value = ""] = /^([^=]+)=(.*)$/.exec(line) ?? []
      if (keyword === "" || keyword === "service" || keyword === "servicefile" || line.startsWith("ldap"))
        throw new ConninfoError(
          `names the service ${service}: line ${n + 1} of ${path} is no keyword=value that is read here`,
        )
      if (!found.has(keyword)) put(found, keyword, value)
    }
  }
  return found
}

/** Host, port, database and user, in which a colon has a backslash, and the password, in which it may. */
const ENTRY = new RegExp(`^${"((?:[^:\\\\]|\\\\.)*):".repeat(4)}(.*)$`)

/** What a password is looked up by. */
export interface PasswordEntry {
  host: string
  port: number
  database: string
  user: string
}

/**
 * The password of a connection from a password file, read anew each time.
 * @throws Error if others than its owner may read the file, where libpq passes over it.
 */
export function readPassword(path: string, entry: PasswordEntry): string | undefined {
  if (!existsSync(path)) return undefined
  if (process.platform !== "win32" && (statSync(path).mode & 0o077) !== 0)
    throw new Error(`the password file ${path} may be read by others, and is not used: chmod 600 it`)
  const wanted = [
    entry.host.startsWith("/") ? "localhost" : entry.host,
    String(entry.port),
    entry.database,
    entry.user,
  ]
  for (const line of readText(path).split(/\r?\n/)) {
    if (line.startsWith("#")) continue
    const [, ...fields] = ENTRY.exec(line) ?? []
    const password = fields.pop()
    const fits = (field: string, n: number) =>
      field === "*" || field.replace(/\\(.)/g, "$1") === wanted[n] || (n === 0 && field === entry.host)
    if (password !== undefined && fields.every(fits)) return password.replace(/\\(.)/g, "$1")
  }
  return undefined
}

/** @throws ConninfoError if it cannot be read. */
export function readText(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    throw new ConninfoError(
      `names the file ${path}, which cannot be read (${(error as NodeJS.ErrnoException).code})`,
    )
  }
}
