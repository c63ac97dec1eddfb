/** Settings: what they default to, what they refuse, and how they say it. */

import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import fc from "fast-check"
import t from "tap"
import { ConfigError, environmentOf, flagOf, readSettings, Settings } from "../../relay/config.ts"

t.test("without any setting there are defaults", async (t) => {
  t.match(readSettings({}), {
    COMMITCAST_DIR: ".commitcast",
    HOST: "127.0.0.1",
    PORT: 8080,
    WS_PATH: "/ws",
    TRUST_PROXY: "false",
    QUERY_TOKEN: true,
    ALLOWED_ORIGINS: [],
    ALLOWED_HOSTS: [],
    RETENTION_HOURS: 24,
    RETENTION_MB: 4096,
    CANARY_SECONDS: 10,
    BELL: "adaptive",
    HEARTBEAT_SECONDS: 25,
    AUTH_TIMEOUT_SECONDS: 10,
    MAX_CHANNELS: 128,
    MAX_ERRORS: 20,
    MAX_CONNECTIONS: 50_000,
    MAX_CONNECTIONS_PER_ADDRESS: 10_000,
    MAX_CONNECTIONS_PER_USER: 100,
    USER_LIMIT: "refuse",
    MAX_UPGRADE_RATE: 1_000,
    MAX_UPGRADE_RATE_PER_ADDRESS: 500,
    MAX_FRAME_RATE: 50,
    MAX_FRAME_RATE_PER_USER: 200,
    MAX_LANES: 10_000,
    ALL_LANES_BUFFER_MB: 256,
    LANE_BUFFER_MB: 32,
    REPLAY_BUFFER_MB: 64,
    DRAIN_TIMEOUT_SECONDS: 20,
    WORKERS: 1,
    LOG_LEVEL: "info",
    LOG_FORMAT: "auto",
    AUDIT_LOG: "off",
  })
  t.notOk("DATABASE_URL" in readSettings({}))
  t.notOk("JWT_SECRET" in readSettings({}))
})

t.test("text becomes what it means", async (t) => {
  const read = (settings: Record<string, string>) => readSettings(settings)
  t.equal(read({ PORT: "0" }).PORT, 0)
  t.equal(read({ HEARTBEAT_SECONDS: "0.5" }).HEARTBEAT_SECONDS, 0.5)
  t.same(read({ ALLOWED_ORIGINS: " https://a.example ,, http://b:1," }).ALLOWED_ORIGINS, [
    "https://a.example",
    "http://b:1",
  ])
  for (const on of ["true", "1", "on", "yes"]) t.equal(read({ QUERY_TOKEN: on }).QUERY_TOKEN, true, on)
  for (const off of ["false", "0", "off", "no"]) t.equal(read({ QUERY_TOKEN: off }).QUERY_TOKEN, false, off)
  t.equal(read({ WS_PATH: "/live/socket//" }).WS_PATH, "/live/socket")
  t.equal(read({ DATABASE_URL: "postgresql://u:p@h/d" }).DATABASE_URL, "postgresql://u:p@h/d")
})

const WRONG: Record<string, string[]> = {
  ALLOWED_HOSTS: ["https://relay.example", "relay.example/ws", "a,b/"],
  DATABASE_URL: [
    "mysql://h/d",
    "localhost",
    "host=localhost dbname",
    " postgres://h/d",
    "postgres://h/d?colour=red",
    "postgres://h:x/d",
    "postgres://[::1/d",
    "postgres://u:100%@h/d",
  ],
  PORT: ["x", "-1", "65536", "80.5", "Infinity", "8080x"],
  WS_PATH: ["ws", "ws://h/ws", "/ws?x", "/ws#x", "/w s"],
  TRUST_PROXY: ["TRUE", "-1", "1.5", "proxy.example", "10.0.0.0/33"],
  JWT_SECRET: ["short", "x".repeat(31), `-----BEGIN PUBLIC KEY-----${"x".repeat(64)}`],
  JWT_SECRET_PREVIOUS: ["short"],
  JWT_PUBLIC_KEY: ["x", "ssh-rsa AAAA", "/etc/keys/public.pem"],
  JWKS_URL: [
    "x",
    "issuer.example/jwks",
    "http://issuer.example/jwks",
    "http://127.0.0.1.example/jwks",
    "http://127.0.0.1@issuer.example/jwks",
    "https://user:password@issuer.example/jwks",
    "file:///etc/keys.json",
    "data:application/json,{}",
  ],
  JWKS_REFRESH_SECONDS: ["0", "-1", "x", "86401"],
  QUERY_TOKEN: ["maybe", "TRUE!", "2"],
  RETENTION_HOURS: ["0", "-1", "x", "8761", "NaN"],
  RETENTION_MB: ["0", "-4", "x"],
  CANARY_SECONDS: ["-1", "x", "86401"],
  METRICS_TOKEN: ["short", "x".repeat(31)],
  BELL: ["loud", "Always"],
  HEARTBEAT_SECONDS: ["0", "-1", "x", "25s", "Infinity"],
  AUTH_TIMEOUT_SECONDS: ["0", "x", "86401"],
  MAX_CHANNELS: ["0", "1.5", "x"],
  MAX_LANES: ["0", "1.5", "x"],
  MAX_ERRORS: ["0", "1.5", "x"],
  MAX_CONNECTIONS: ["-1", "1.5", "x", "Infinity"],
  MAX_CONNECTIONS_PER_ADDRESS: ["-1", "1.5", "x"],
  MAX_CONNECTIONS_PER_USER: ["-1", "1.5", "x"],
  USER_LIMIT: ["kick", "Refuse"],
  MAX_UPGRADE_RATE: ["-1", "x", "Infinity"],
  MAX_UPGRADE_RATE_PER_ADDRESS: ["-1", "x"],
  MAX_FRAME_RATE: ["-1", "x", "NaN"],
  MAX_CONNECTION_AGE_SECONDS: ["-1", "1.5", "x"],
  DRAIN_RATE: ["-1", "x", "NaN"],
  MAX_FRAME_RATE_PER_USER: ["-1", "x"],
  ALL_LANES_BUFFER_MB: ["0", "-1", "x"],
  LANE_BUFFER_MB: ["0", "-1", "x"],
  REPLAY_BUFFER_MB: ["0", "-1", "x"],
  WORKERS: ["0", "-1", "1.5", "257", "many", "AUTO"],
  DRAIN_TIMEOUT_SECONDS: ["0", "x"],
  LOG_LEVEL: ["verbose", "INFO"],
  LOG_FORMAT: ["xml"],
}

t.test("a wrong setting is refused with what it must be", async (t) => {
  const cases: Array<[name: string, value: string, demand: string]> = [
    ["PORT", "abc", "must be a number"],
    ["PORT", "1.5", "must be a whole number"],
    ["PORT", "-1", "must be at least 0"],
    ["PORT", "70000", "must be at most 65535"],
    ["HEARTBEAT_SECONDS", "0", "must be more than 0"],
    ["BELL", "loud", "must be one of adaptive, always, off"],
    ["WORKERS", "many", "must be a number from 1 to 256, or auto"],
  ]
  for (const [name, value, demand] of cases)
    t.throws(() => readSettings({ [name]: value }), {
      message: `${name} (${flagOf(name)}) is wrong: ${demand}`,
    })
})

t.test("a wrong setting is named with its flag, and its value is not repeated", async (t) => {
  for (const [name, values] of Object.entries(WRONG)) {
    for (const value of values) {
      const read = () => readSettings({ [name]: value })
      t.throws(read, ConfigError, `${name}=${value}`)
      t.throws(read, { name: "ConfigError" })
      try {
        read()
      } catch (error) {
        const { message } = error as Error
        t.ok(message.startsWith(`${name} (${flagOf(name)}) is wrong: `), message)
        if (name.startsWith("JWT") || name === "METRICS_TOKEN" || name === "DATABASE_URL")
          t.notOk(message.includes(value), "secrets stay secret")
      }
    }
  }
})

t.test("a message says what the setting must be", async (t) => {
  t.throws(() => readSettings({ JWT_SECRET: "short" }), { message: /at least 32 bytes/ })
  t.throws(() => readSettings({ JWT_PUBLIC_KEY: "x" }), { message: /PEM public key/ })
  t.throws(() => readSettings({ WS_PATH: "ws" }), { message: /path such as \/ws/ })
  t.throws(() => readSettings({ DATABASE_URL: "x" }), { message: /postgres:\/\// })
  t.throws(() => readSettings({ BELL: "loud" }), { message: /adaptive.*always.*off/ })
})

t.test("a secret is counted in bytes, and taken as it is", async (t) => {
  t.equal(readSettings({ JWT_SECRET: "é".repeat(16) }).JWT_SECRET, "é".repeat(16))
  t.throws(() => readSettings({ JWT_SECRET: "é".repeat(15) }), ConfigError)
  const padded = ` ${"x".repeat(32)} `
  t.equal(readSettings({ JWT_SECRET: padded }).JWT_SECRET, padded)
})

t.test("a secret and a public key at once are refused, from whatever sources", async (t) => {
  const secret = { JWT_SECRET: "x".repeat(32) }
  const key = { JWT_PUBLIC_KEY: "-----BEGIN PUBLIC KEY-----" }
  t.throws(() => readSettings({ ...secret, ...key }), {
    name: "ConfigError",
    message: /JWT_SECRET and JWT_PUBLIC_KEY/,
  })
  t.throws(() => readSettings(secret, key), ConfigError)
  t.match(readSettings({ ...secret, JWT_PUBLIC_KEY: "" }), secret)
})

t.test("keys that are fetched need an issuer and an audience, and no others beside them", async (t) => {
  const url = { JWKS_URL: "https://issuer.example/jwks" }
  const bound = { ...url, JWT_ISSUER: "issuer", JWT_AUDIENCE: "relay" }
  t.match(readSettings(bound), bound)
  for (const own of ["http://localhost:1/jwks", "http://127.0.0.1/jwks", "http://[::1]:9/jwks"])
    t.match(readSettings({ ...bound, JWKS_URL: own }), { JWKS_URL: own })
  const refused = (settings: Record<string, string>, message: RegExp) =>
    t.throws(() => readSettings(settings), { name: "ConfigError", message })
  refused(url, /JWKS_URL needs JWT_ISSUER and JWT_AUDIENCE/)
  refused({ ...url, JWT_AUDIENCE: "relay" }, /JWKS_URL needs JWT_ISSUER:/)
  refused({ ...url, JWT_ISSUER: "issuer" }, /JWKS_URL needs JWT_AUDIENCE:/)
  refused({ ...bound, JWT_SECRET: "x".repeat(32) }, /JWT_SECRET and JWKS_URL/)
  refused({ ...bound, JWT_PUBLIC_KEY: "-----BEGIN PUBLIC KEY-----" }, /JWT_PUBLIC_KEY and JWKS_URL/)
})

t.test("a previous secret is nothing without a present one", async (t) => {
  const previous = { JWT_SECRET_PREVIOUS: "x".repeat(32) }
  t.throws(() => readSettings(previous), { name: "ConfigError", message: /without JWT_SECRET/ })
  t.match(readSettings({ ...previous, JWT_SECRET: "y".repeat(32) }), previous)
})

t.test("the README's table has every setting, with its default and what it means", async (t) => {
  const readme = readFileSync(fileURLToPath(import.meta.resolve("#root/README.md")), "utf8")
  const rows = [...readme.matchAll(/^\| `([A-Z_]+)` \| (.*?) ?\| (.*) \|$/gm)].map(([, ...cells]) => cells)
  const defaults: Record<string, unknown> = readSettings({})
  const expected = Object.entries(Settings.shape).map(([name, field]) => {
    const value = defaults[name]
    const shown = value === undefined || (Array.isArray(value) && value.length === 0) ? "" : `\`${value}\``
    return [name, shown, field.description]
  })
  t.same(rows, expected)
})

t.test("later sources win, and what is empty or unknown does not count", async (t) => {
  t.equal(readSettings({ PORT: "1" }, { PORT: "2" }).PORT, 2)
  t.equal(readSettings({ PORT: "1" }, { PORT: "" }).PORT, 1)
  t.equal(readSettings({ PORT: "1" }, { PORT: undefined }).PORT, 1)
  t.equal(readSettings({ PORT: "x" }, { PORT: "2" }).PORT, 2, "what lost is not checked")
  t.notOk("PATH" in readSettings({ PATH: "/bin" }))
  t.throws(() => {
    Object.assign(readSettings({}), { PORT: 1 })
  }, "they are frozen")
})

t.test("every setting has a description and a flag of its own", async (t) => {
  const names = Object.keys(Settings.shape)
  for (const name of names) {
    const field = Settings.shape[name as keyof typeof Settings.shape]
    t.ok(field.description, name)
    t.match(flagOf(name), /^--[a-z]+(-[a-z]+)*$/)
  }
  t.equal(new Set(names.map(flagOf)).size, names.length)
  t.same(
    names.filter((name) => !(name in WRONG)),
    ["COMMITCAST_DIR", "HOST", "JWT_ISSUER", "JWT_AUDIENCE", "ALLOWED_ORIGINS", "AUDIT_LOG"],
  )
})

t.test("whatever the environment holds, either it is read or a setting is named", async (t) => {
  const name = fc.constantFrom(...Object.keys(Settings.shape))
  const property = fc.property(fc.dictionary(name, fc.string()), (settings) => {
    try {
      return Object.isFrozen(readSettings(settings))
    } catch (error) {
      return error instanceof ConfigError && /^[A-Z_]+ /.test(error.message)
    }
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }))
})

t.test("settings that are passed on by environment are the same settings", async (t) => {
  const given = {
    DATABASE_URL: "postgres://u:p%20@h/d",
    PORT: "0",
    WS_PATH: "/live/",
    JWT_SECRET: "a secret, with a comma and = in it, long enough",
    QUERY_TOKEN: "off",
    ALLOWED_ORIGINS: "https://a.example, http://b:1",
    HEARTBEAT_SECONDS: "0.5",
    WORKERS: "auto",
  }
  for (const settings of [readSettings({}), readSettings(given)])
    t.strictSame(readSettings(environmentOf(settings)), settings)
})
