/** The settings of a command: flags over the environment over `.env`; secrets may lie in files of their own. */

import { readFileSync } from "node:fs"
import { parseEnv } from "node:util"
import { ConfigError, optionOf, readSettings, Settings } from "../../relay/config.ts"
import { parseConninfo } from "../../relay/lib/conninfo.ts"

type Source = Record<string, string | undefined>

/** What may come by `<NAME>_FILE`, as Docker's and Kubernetes' secrets do. */
const FROM_FILES = [
  "DATABASE_URL",
  "JWT_SECRET",
  "JWT_SECRET_PREVIOUS",
  "JWT_PUBLIC_KEY",
  "METRICS_TOKEN",
] as const
const PASSWORDS = ["password", "sslpassword", "scram_client_key", "scram_server_key"]
const SECRETS = new Set<string>(["JWT_SECRET", "JWT_SECRET_PREVIOUS", "METRICS_TOKEN"])

/** @throws ConfigError that names the setting, or the file, and what is wrong. */
export function settingsOf(options: Record<string, unknown>): Readonly<Settings> {
  const flags: Source = {}
  for (const name of Object.keys(Settings.shape)) {
    const value = options[optionOf(name)]
    if (typeof value === "string") flags[name] = value
  }
  return readSettings(withFiles(readEnvFile()), withFiles(process.env), flags)
}

function readEnvFile(): Source {
  try {
    return parseEnv(readFileSync(".env", "utf8"))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {}
    throw new ConfigError(`.env cannot be read: ${(error as Error).message}`)
  }
}

/** A source with what its files have. A file and a value in one source are a mistake of which nobody knows the right one. */
function withFiles(source: Source): Source {
  const read: Source = {}
  for (const name of FROM_FILES) {
    const path = source[`${name}_FILE`]
    if (path === undefined || path === "") continue
    if (source[name]) throw new ConfigError(`${name} and ${name}_FILE are both set: keep one of them`)
    read[name] = readSecret(`${name}_FILE`, path)
  }
  return { ...source, ...read }
}

/** Editors and `echo` end a file with a line break, which is no part of a secret. */
function readSecret(name: string, path: string): string {
  let text: string
  try {
    text = readFileSync(path, "utf8").replace(/\r?\n$/, "")
  } catch (error) {
    throw new ConfigError(`${name}: ${path} cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
  if (text === "") throw new ConfigError(`${name}: ${path} is empty`)
  return text
}

/** The settings that are set, as they may be shown: no secret, no password. */
export function shownSettings(settings: Readonly<Settings>): Record<string, unknown> {
  const shown = Object.entries(settings)
    .filter(([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0))
    .map(([name, value]) => [name, shownValue(name, value)])
  return Object.fromEntries(shown)
}

/** Those that are not as by default. */
export function changedSettings(settings: Readonly<Settings>): Record<string, unknown> {
  const defaults = shownSettings(readSettings({}))
  const changed = Object.entries(shownSettings(settings)).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(defaults[name]),
  )
  return Object.fromEntries(changed)
}

function shownValue(name: string, value: unknown): unknown {
  if (SECRETS.has(name)) return `(${Buffer.byteLength(String(value))} bytes)`
  if (name === "JWT_PUBLIC_KEY") return "(PEM)"
  return name === "DATABASE_URL" ? withoutPassword(String(value)) : value
}

function withoutPassword(text: string): string {
  // Several hosts with ports are no URL, and keywords are none. Of an @, # or ? in user or password a URL makes a path.
  if (!URL.canParse(text) || /^[^/]*\/\/[^/?#]*[/?#].*[@#]/s.test(text)) return keywordsWithoutPassword(text)
  const url = new URL(text)
  if (url.password !== "") url.password = "***"
  // libpq takes them here too.
  for (const name of PASSWORDS) if (url.searchParams.has(name)) url.searchParams.set(name, "***")
  return url.href
}

function keywordsWithoutPassword(text: string): string {
  try {
    const found = parseConninfo(text)
    // The rest of a password with a plain / in it.
    if (found.get("dbname")?.includes("@")) return "(not shown)"
    return [...found]
      .map(([keyword, value]) => `${keyword}=${PASSWORDS.includes(keyword) ? "***" : quoted(value)}`)
      .join(" ")
  } catch {
    return "(not shown)"
  }
}

const quoted = (value: string): string =>
  /^[^\s'\\]+$/.test(value) ? value : `'${value.replace(/['\\]/g, "\\$&")}'`
