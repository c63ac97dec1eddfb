/** The settings: read once from flags, environment and `.env`, checked here, frozen. */

import { z } from "zod"
import { readTrust } from "./lib/client-address.ts"
import { ConninfoError, parseConninfo } from "./lib/conninfo.ts"

/** A setting that is wrong. The message names it; the process ends with exit code 2. */
export class ConfigError extends Error {
  override name = "ConfigError"
}

/** At most a day: Node's timers take no more than 24. */
const seconds = (value: number) => z.coerce.number().positive().max(86_400).default(value)
const count = (value: number) => z.coerce.number().int().positive().default(value)
/** 0 is no limit. */
const limit = (value: number) => z.coerce.number().int().min(0).default(value)
const rate = (value: number) => z.coerce.number().min(0).default(value)
const list = z
  .string()
  .default("")
  .transform((text) =>
    text
      .split(",")
      .map((item) => item.trim())
      .filter((item) => item !== ""),
  )
/** Whoever can answer in place of the issuer can let anybody in. */
function isTrustworthy(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname, username, password } = new URL(text)
  const own = hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname)
  return username === "" && password === "" && (protocol === "https:" || (protocol === "http:" && own))
}
const password = z
  .string()
  .refine((text) => Buffer.byteLength(text) >= 32, "must be at least 32 bytes: openssl rand -base64 48")
const secret = password
  .refine(
    (text) => !text.includes("-----BEGIN"),
    "must be no PEM key, which others may have: set JWT_PUBLIC_KEY",
  )
  .optional()
const flag = (value: boolean) =>
  z
    .enum(["true", "false", "1", "0", "on", "off", "yes", "no"])
    .default(value ? "true" : "false")
    .transform((text) => ["true", "1", "on", "yes"].includes(text))

function isTrust(text: string): boolean {
  try {
    readTrust(text)
    return true
  } catch {
    return false
  }
}

function conninfoFault(text: string): string | undefined {
  try {
    parseConninfo(text)
    return undefined
  } catch (error) {
    if (error instanceof ConninfoError) return error.message
    throw error
  }
}

/** Every setting by its environment name; its flag is the same in lower case with dashes. */
export const Settings = z.object({
  DATABASE_URL: z
    .string()
    .superRefine((text, context) => {
      const message = conninfoFault(text)
      if (message !== undefined) context.addIssue({ code: "custom", message })
    })
    .optional()
    .describe("the database to relay from; unset: an embedded PostgreSQL in COMMITCAST_DIR"),
  COMMITCAST_DIR: z
    .string()
    .min(1)
    .default(".commitcast")
    .describe("where the embedded PostgreSQL keeps its data"),
  HOST: z.string().min(1).default("127.0.0.1").describe("the address to listen on"),
  PORT: z.coerce
    .number()
    .int()
    .min(0)
    .max(65535)
    .default(8080)
    .describe("the port to listen on; 0 picks a free one"),
  WS_PATH: z
    .string()
    .regex(/^\/[^?#\s]*$/, "must be a path such as /ws")
    .default("/ws")
    .transform((path) => path.replace(/\/+$/, ""))
    .describe("the path of the WebSocket endpoint"),
  TRUST_PROXY: z
    .string()
    .refine(isTrust, "must be false, true, a number of hops, or addresses")
    .default("false")
    .describe("the proxies whose X-Forwarded headers count: false, true, a number of hops, or addresses"),
  JWT_SECRET: secret.describe("the secret that HS256 tokens are signed with, 32 bytes or more"),
  JWT_SECRET_PREVIOUS: secret.describe("the secret before it: its tokens still count"),
  JWT_PUBLIC_KEY: z
    .string()
    .refine((key) => key.includes("-----BEGIN"), "must be a PEM public key")
    .optional()
    .describe("the PEM public key of RS256 or ES256 tokens, or several one after another"),
  JWKS_URL: z
    .string()
    .refine(isTrustworthy, "must be an https URL without a password; http only to this machine itself")
    .optional()
    .describe("where the issuer of RS256 or ES256 tokens publishes its keys; needs issuer and audience"),
  JWKS_REFRESH_SECONDS: seconds(600).describe(
    "the time between two looks at JWKS_URL: a withdrawn key counts for so long",
  ),
  JWT_ISSUER: z.string().min(1).optional().describe("the only accepted `iss`"),
  JWT_AUDIENCE: z.string().min(1).optional().describe("the only accepted `aud`"),
  QUERY_TOKEN: flag(true).describe("whether the token may come as ?token=, where proxies may log it"),
  ALLOWED_ORIGINS: list.describe(
    "other origins whose pages may connect, comma separated; the relay's own host always may",
  ),
  ALLOWED_HOSTS: list
    .refine((hosts) => hosts.every((host) => !host.includes("/")), "must be hosts such as relay.example:8080")
    .describe(
      "the hosts that requests may name, with or without a port, comma separated, but for the health probes; unset: any",
    ),
  RETENTION_HOURS: z.coerce
    .number()
    .positive()
    .max(24 * 365)
    .default(24)
    .describe("how long a cursor can be resumed, at least"),
  RETENTION_MB: z.coerce
    .number()
    .positive()
    .default(4096)
    .describe("the size of the changelog at which it is rotated early"),
  CANARY_SECONDS: z.coerce
    .number()
    .min(0)
    .max(86_400)
    .default(10)
    .describe(
      "the time between two rows that the relay writes to the log to see them come back; 0 writes none",
    ),
  METRICS_TOKEN: password
    .optional()
    .describe("what /metrics wants to be asked with, as Authorization: Bearer; unset: it is open"),
  BELL: z
    .enum(["adaptive", "always", "off"])
    .default("adaptive")
    .describe(
      "when triggers NOTIFY: adaptive (not while the relay is busy polling), always, off (poll every 50 ms)",
    ),
  HEARTBEAT_SECONDS: seconds(25).describe("the time between two heartbeats to a client"),
  AUTH_TIMEOUT_SECONDS: seconds(10).describe(
    "how long a request may take to come, and then its connection to authenticate",
  ),
  MAX_CHANNELS: count(128).describe("the channels that a connection may join"),
  MAX_LANES: count(10_000).describe(
    "the different subscriptions in a process at a time; with so many another filter is refused",
  ),
  MAX_ERRORS: count(20).describe("the errors that a connection may be told before it is closed"),
  MAX_CONNECTIONS: limit(50_000).describe("the connections in all; 0: any number"),
  MAX_CONNECTIONS_PER_ADDRESS: limit(10_000).describe(
    "the connections of a client address, which is a proxy's where TRUST_PROXY does not name it; 0: any number",
  ),
  MAX_CONNECTIONS_PER_USER: limit(100).describe(
    "the connections of a user, that is of all tokens with the same `sub`; 0: any number",
  ),
  USER_LIMIT: z
    .enum(["refuse", "evict"])
    .default("refuse")
    .describe("beyond it: refuse the new connection, or evict the user's oldest"),
  MAX_UPGRADE_RATE: rate(1_000).describe("new connections a second in all; 0: any number"),
  MAX_UPGRADE_RATE_PER_ADDRESS: rate(500).describe(
    "new connections a second of a client address; 0: any number",
  ),
  MAX_FRAME_RATE: rate(50).describe("frames a second that a connection may send; 0: any number"),
  MAX_FRAME_RATE_PER_USER: rate(200).describe(
    "frames a second that a user's connections may send together; 0: any number",
  ),
  LANE_BUFFER_MB: z.coerce
    .number()
    .positive()
    .default(32)
    .describe("how far the slowest reader of a lane may fall behind"),
  ALL_LANES_BUFFER_MB: z.coerce
    .number()
    .positive()
    .default(256)
    .describe("how much may wait in all lanes of a process together for who is behind"),
  REPLAY_BUFFER_MB: z.coerce
    .number()
    .positive()
    .default(64)
    .describe("how much of the latest changes is kept in memory for clients that return"),
  MAX_CONNECTION_AGE_SECONDS: limit(0).describe(
    "the age at which a connection is closed, or up to a fifth earlier, so that clients spread over relays that came later; 0: never",
  ),
  DRAIN_RATE: rate(500).describe(
    "connections a second that are closed at shutdown, or more if DRAIN_TIMEOUT_SECONDS wants it; 0: all at once",
  ),
  DRAIN_TIMEOUT_SECONDS: seconds(20).describe("how long closing connections may take at shutdown"),
  WORKERS: z
    .union(
      [z.literal("auto"), z.coerce.number().int().min(1).max(256)],
      "must be a number from 1 to 256, or auto",
    )
    .default(1)
    .describe("the processes that share the port, one feed for all; auto: one for each core"),
  LOG_LEVEL: z
    .enum(["trace", "debug", "info", "warn", "error", "silent"])
    .default("info")
    .describe("what is logged"),
  LOG_FORMAT: z
    .enum(["auto", "pretty", "json"])
    .default("auto")
    .describe("how: pretty on a terminal and JSON elsewhere, or one of them"),
  AUDIT_LOG: z
    .string()
    .min(1)
    .default("off")
    .describe("who connects, joins, is refused and leaves: off, stdout, or the path of a file to append to"),
})
export type Settings = z.infer<typeof Settings>

/** The flag of a setting: DATABASE_URL is --database-url. */
export const flagOf = (name: string): string => `--${name.toLowerCase().replaceAll("_", "-")}`

/** The same setting as an option of a program: DATABASE_URL is databaseUrl. */
export const optionOf = (name: string): string =>
  name.toLowerCase().replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())

/** The settings as environment variables, from which `readSettings` makes the same settings. */
export const environmentOf = (
  settings: Readonly<{ [Name in keyof Settings]?: unknown }>,
): Record<string, string> =>
  Object.fromEntries(
    Object.entries(settings)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, String(value)]),
  )

/**
 * Checks the settings. Later sources win; an empty string counts as unset.
 * @throws ConfigError that names the first wrong setting and says what it must be.
 */
export function readSettings(...sources: Array<Record<string, string | undefined>>): Readonly<Settings> {
  const merged: Record<string, string> = {}
  for (const source of sources) {
    for (const name of Object.keys(Settings.shape)) {
      const value = source[name]
      if (value !== undefined && value !== "") merged[name] = value
    }
  }
  const result = Settings.safeParse(merged)
  if (!result.success) {
    const issue = result.error.issues[0]
    const name = String(issue?.path[0])
    throw new ConfigError(`${name} (${flagOf(name)}) is wrong: ${issue && demandOf(issue)}`)
  }
  checkKeySettings(result.data)
  return Object.freeze(result.data)
}

/** What a value must be. Zod's own words are about types, such as "expected number, received NaN". */
function demandOf(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return issue.expected === "int" ? "must be a whole number" : `must be a ${issue.expected}`
    case "too_small":
      return `must be ${issue.inclusive ? "at least" : "more than"} ${issue.minimum}`
    case "too_big":
      return `must be ${issue.inclusive ? "at most" : "less than"} ${issue.maximum}`
    case "invalid_value":
      return `must be one of ${issue.values.join(", ")}`
    default:
      return issue.message
  }
}

function checkKeySettings(settings: Settings): void {
  const isSet = (name: keyof Settings) => settings[name] !== undefined
  const sources = (["JWT_SECRET", "JWT_PUBLIC_KEY", "JWKS_URL"] as const).filter(isSet)
  if (sources.length > 1)
    throw new ConfigError(
      `${sources.join(" and ")} are both set: keep the one that your tokens are signed for`,
    )
  if (isSet("JWT_SECRET_PREVIOUS") && !isSet("JWT_SECRET"))
    throw new ConfigError("JWT_SECRET_PREVIOUS (--jwt-secret-previous) is set without JWT_SECRET")
  const missing = (["JWT_ISSUER", "JWT_AUDIENCE"] as const).filter((name) => !isSet(name))
  if (isSet("JWKS_URL") && missing.length > 0)
    throw new ConfigError(
      `JWKS_URL needs ${missing.join(" and ")}: the same keys sign tokens for other applications`,
    )
}
