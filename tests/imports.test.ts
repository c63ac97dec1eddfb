/** Holds the rules of the house: who may import whom, where SQL and clocks may live. Reads the sources, runs none. */

import { existsSync, readdirSync, readFileSync } from "node:fs"
import { posix } from "node:path"
import { fileURLToPath } from "node:url"
import t from "tap"

type Import = { specifier: string; target: string | undefined; typeOnly: boolean; reExport: boolean }
type Source = { path: string; code: string; literals: string[]; imports: Import[] }
type Rule = (source: Source) => string[]

const root = posix.dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
const FOLDERS = ["relay", "api", "cli", "client", "tests", "bench"]
const WS_FILES = ["relay/gateway.ts", "relay/connection.ts", "relay/wire.ts"]
const SQL_FILES = ["relay/changelog.ts", "relay/session.ts", "relay/derived.ts"]
const SQL_FOLDERS = ["sql", "cli", "tests", "bench"]
const PURE_FILES = [
  "subscription",
  "filter",
  "scalar",
  "decimal",
  "cursor",
  "change",
  "restriction",
  "row",
].map((noun) => `relay/${noun}.ts`)
const PURE_MODULES = ["zod", "node:buffer", "node:crypto", "node:util"]

const sourcesIn = (name: string): string[] =>
  readdirSync(`${root}/${name}`, { recursive: true, encoding: "utf8" })
    .map((file) => `${name}/${file.replaceAll("\\", "/")}`)
    .filter((path) => path.endsWith(".ts"))

const folder = (path: string): string => path.slice(0, path.indexOf("/"))

// ------------------------------------------------------------------------------------------- reading a source

const REGEXP = /(?<=(?:^|[(,=:[!&|?{};+>]|return|\n)\s*)\/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\//
const LITERAL = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\[\s\S]|[^`\\])*`/
const COMMENT = /\/\/[^\n]*|\/\*[\s\S]*?\*\//
const TOKEN = new RegExp(`(${COMMENT.source})|(${LITERAL.source})|(${REGEXP.source})`, "g")

/** Comments vanish, literals become "#0", "#1" ..., so that the rules never take a text for code. */
function read(path: string, text: string): Source {
  const literals: string[] = []
  const code = text.replace(TOKEN, (_, comment, literal, regexp) => {
    if (comment !== undefined) return " "
    if (regexp !== undefined) return "/./"
    return `"#${literals.push(literal.slice(1, -1)) - 1}"`
  })
  const imports = [
    ...code.matchAll(
      /\b(import|export)\b(\s+type\b(?!\s+from))?((?:(?!\b(?:im|ex)port\b)[^"();=])*)"#(\d+)"/g,
    ),
  ].flatMap(([, word, type, between = "", index]): Import[] => {
    if (between.trim() !== "" && !/\bfrom\s*$/.test(between)) return []
    const specifier = literals[Number(index)] ?? ""
    return [resolve(path, specifier, { typeOnly: type !== undefined, reExport: word === "export" })]
  })
  for (const [, index] of code.matchAll(/\bimport\s*\(\s*"#(\d+)"/g)) {
    imports.push(resolve(path, literals[Number(index)] ?? "", { typeOnly: false, reExport: false }))
  }
  return { path, code, literals, imports }
}

function resolve(path: string, specifier: string, rest: Pick<Import, "typeOnly" | "reExport">): Import {
  const target = specifier.startsWith("#root/")
    ? specifier.slice("#root/".length)
    : specifier.startsWith(".")
      ? posix.join(posix.dirname(path), specifier)
      : undefined
  return { specifier, target, ...rest }
}

// ------------------------------------------------------------------------------------------- the rules

const relayKnowsNobody: Rule = ({ path, imports }) =>
  folder(path) !== "relay"
    ? []
    : imports
        .filter(({ target }) => target !== undefined && ["api", "cli", "client"].includes(folder(target)))
        .map(
          ({ specifier }) => `${path} imports ${specifier}: relay/ knows nothing of api/, cli/ and client/`,
        )

const onlyListenerListens: Rule = ({ path, imports }) =>
  imports
    .filter(({ specifier }) => specifier === "pg-listen" && path !== "relay/listener.ts")
    .map(() => `${path} imports pg-listen: only relay/listener.ts may`)

/** cli/, tests/ and bench/ may be clients, which need ws on Node 20; the server side of ws has three files. */
const onlyTheGatewayKnowsWs: Rule = ({ path, imports }) =>
  imports
    .filter(({ specifier }) => /^ws(\/|$)/.test(specifier))
    .filter(() => ["relay", "api", "client"].includes(folder(path)) && !WS_FILES.includes(path))
    .map(() => `${path} imports ws: only ${WS_FILES.join(", ")} may`)

const SQL = new RegExp(
  `^(?:${[
    "select\\s+\\S",
    "insert\\s+into\\s",
    "update\\s+(?:only\\s+)?\\S+(?:\\s+(?:as\\s+)?\\w+)?\\s+set\\s",
    "delete\\s+from\\s",
    "merge\\s+into\\s",
    "with\\s+(?:recursive\\s+)?\\S+\\s*(?:\\([^)]*\\)\\s*)?as\\s+(?:not\\s+)?(?:materialized\\s+)?\\(",
    "lock\\s+(?:table\\s|\\S+\\s+in\\s)",
    "truncate\\s+(?:table\\s+)?\\S",
    "(?:begin|commit|rollback)\\s*(?:;|$|work\\b|transaction\\b|isolation\\b|read\\b|to\\s)",
    "(?:start|prepare)\\s+transaction\\b",
    "set\\s+(?:local|session|role|transaction|constraints|search_path|time\\s+zone)\\b",
    "set\\s+[a-z_.]+\\s*=",
    "(?:un)?listen\\s+\\S+\\s*;?$",
    'notify\\s+[\\w"]+\\s*(?:,|;|$)',
    "(?:create|alter|drop)\\s+(?:or\\s+replace\\s+)?(?:temp\\w*\\s+|unlogged\\s+|unique\\s+)?" +
      "(?:table|function|procedure|index|schema|role|user|database|trigger|view|sequence|type|extension)\\b",
    "(?:grant|revoke)\\s[\\s\\S]+\\s(?:on|to|from)\\s",
    "(?:analyze|vacuum)\\s+\\S",
    "explain\\s+(?:\\(|analyze|select)",
    "declare\\s+\\S+\\s[\\s\\S]*\\bcursor\\b",
    "copy\\s[\\s\\S]+\\b(?:stdin|stdout)\\b",
    "savepoint\\s+\\w+\\s*;?$",
    "show\\s+[a-z_.]+\\s*;?$",
    "call\\s+[\\w.]+\\s*\\(",
    "do\\s+\\$",
  ].join("|")})`,
  "i",
)

/** A sentence may begin with "Select"; SQL is written select or SELECT. */
function isSql(literal: string): boolean {
  const text = literal.replace(/^(?:\s|\\n|--[^\n]*\n|\/\*[\s\S]*?\*\/)+/, "")
  return SQL.test(text) && !/^[A-Z][a-z]/.test(text)
}

const sqlHasItsPlaces: Rule = ({ path, literals }) =>
  SQL_FILES.includes(path) || SQL_FOLDERS.includes(folder(path))
    ? []
    : literals
        .filter(
          (literal) => isSql(literal) && !(path === "relay/listener.ts" && /listen|notify/i.test(literal)),
        )
        .map(
          (literal) =>
            `${path} holds SQL (${literal.trim().slice(0, 40)}): it belongs to ${SQL_FILES.join(", ")}`,
        )

const CLOCK_OR_IO =
  /\bnew\s+Date\b|\bDate\s*(?:\.\s*now\b|\()|\b(?:setTimeout|setInterval|setImmediate|performance|queueMicrotask|fetch|process|console)\b|\bMath\s*\.\s*random\b/

const pureFilesStayPure: Rule = ({ path, code, imports }) => {
  if (!PURE_FILES.includes(path)) return []
  const found = imports
    .filter(
      ({ target, typeOnly, specifier }) =>
        target === undefined && !typeOnly && !PURE_MODULES.includes(specifier),
    )
    .map(({ specifier }) => `${path} imports ${specifier}: it does no I/O`)
  const clock = CLOCK_OR_IO.exec(code)
  return clock ? [...found, `${path} uses ${clock[0]}: it does no I/O and reads no clock`] : found
}

const clientStandsAlone: Rule = ({ path, imports }) =>
  folder(path) !== "client"
    ? []
    : imports
        .filter(({ target }) => target === undefined || folder(target) !== "client")
        .filter(({ target, typeOnly }) => !(typeOnly && target?.startsWith("relay/")))
        .map(
          ({ specifier }) =>
            `${path} imports ${specifier}: client/ has no dependencies, it takes types from relay/`,
        )

const noIndexReExports: Rule = ({ path, imports }) =>
  /(^|\/)index\.ts$/.test(path) && imports.some(({ reExport }) => reExport)
    ? [`${path} re-exports: import from the file that owns the thing`]
    : []

const RULES = [
  relayKnowsNobody,
  onlyListenerListens,
  onlyTheGatewayKnowsWs,
  sqlHasItsPlaces,
  pureFilesStayPure,
  clientStandsAlone,
  noIndexReExports,
]

function circles(sources: Source[]): string[] {
  const edges = new Map(
    sources.map(({ path, imports }) => [
      path,
      imports.flatMap(({ target, typeOnly }) => (target === undefined || typeOnly ? [] : [target])),
    ]),
  )
  const found: string[] = []
  const done = new Set<string>()
  const visit = (path: string, trail: string[]): void => {
    const start = trail.indexOf(path)
    if (start >= 0) found.push(`circle: ${[...trail.slice(start), path].join(" -> ")}`)
    if (start >= 0 || done.has(path)) return
    for (const next of edges.get(path) ?? []) visit(next, [...trail, path])
    done.add(path)
  }
  for (const path of edges.keys()) visit(path, [])
  return found
}

function violations(files: Record<string, string>): string[] {
  const sources = Object.entries(files).map(([path, text]) => read(path, text))
  return [...sources.flatMap((source) => RULES.flatMap((rule) => rule(source))), ...circles(sources)]
}

// ------------------------------------------------------------------------------------------- the tests

t.test("every source keeps the rules of the house", async (t) => {
  const paths = FOLDERS.filter((name) => existsSync(`${root}/${name}`)).flatMap(sourcesIn)
  const files = Object.fromEntries(paths.map((path) => [path, readFileSync(`${root}/${path}`, "utf8")]))
  t.ok(paths.includes("tests/imports.test.ts"), "the sources are found")
  t.strictSame(violations(files), [])
})

const OFFENCES: [rule: string, files: Record<string, string>, message: RegExp][] = [
  ["relay/ to api/", { "relay/hub.ts": `import { app } from "../api/app.ts"` }, /knows nothing/],
  ["relay/ to cli/", { "relay/hub.ts": `const cli = await import("../cli/main.ts")` }, /knows nothing/],
  [
    "relay/ to client/",
    { "relay/hub.ts": `import type { Client } from "#root/client/client.ts"` },
    /knows nothing/,
  ],
  ["pg-listen", { "relay/feed.ts": `import pgListen from "pg-listen"` }, /only relay\/listener/],
  ["pg-listen in cli/", { "cli/tail.ts": `import pgListen from "pg-listen"` }, /only relay\/listener/],
  [
    "ws",
    { "relay/hub.ts": `import {\n  type WebSocket,\n  WebSocketServer,\n} from "ws"` },
    /only relay\/gateway/,
  ],
  ["ws in api/", { "api/app.ts": `import "ws"` }, /only relay\/gateway/],
  ["SQL", { "relay/feed.ts": "const text = `\n  select *\n  from relay.change`" }, /holds SQL/],
  ["SQL in capitals", { "api/health.ts": `query("SELECT 1")` }, /holds SQL/],
  [
    "SQL after a comment",
    { "relay/hub.ts": "query(`-- why\n with a as (values (1)) table a`)" },
    /holds SQL/,
  ],
  ["SQL: insert", { "relay/hub.ts": `query("insert into relay.change values (1)")` }, /holds SQL/],
  ["SQL: update", { "relay/hub.ts": "query(`update $" + "{table} set a = 1`)" }, /holds SQL/],
  ["SQL: delete", { "relay/hub.ts": `query("delete from vote")` }, /holds SQL/],
  ["SQL: lock", { "relay/hub.ts": `query("LOCK TABLE relay.change_0")` }, /holds SQL/],
  ["SQL: truncate", { "relay/hub.ts": `query("truncate relay.change_0")` }, /holds SQL/],
  ["SQL: begin", { "relay/hub.ts": `query("begin")` }, /holds SQL/],
  ["SQL: set", { "relay/hub.ts": `query("set local lock_timeout = '30ms'")` }, /holds SQL/],
  ["SQL of others in the listener", { "relay/listener.ts": `query("select now()")` }, /holds SQL/],
  ["I/O", { "relay/cursor.ts": `import { readFileSync } from "node:fs"` }, /no I\/O/],
  ["a socket", { "relay/change.ts": `import net from "node:net"` }, /no I\/O/],
  ["Date.now", { "relay/subscription.ts": "export const now = () => Date.now()" }, /reads no clock/],
  ["new Date", { "relay/row.ts": "export const now = () => new Date()" }, /reads no clock/],
  ["setTimeout", { "relay/change.ts": "setTimeout(() => {}, 1)" }, /reads no clock/],
  ["performance", { "relay/change.ts": "export const now = performance.now" }, /reads no clock/],
  [
    "client/ takes a value",
    { "client/client.ts": `import { CloseCode } from "../relay/protocol.ts"` },
    /types/,
  ],
  ["client/ takes an inline type", { "client/a.ts": `import { type A } from "../relay/change.ts"` }, /types/],
  ["client/ takes a package", { "client/client.ts": `import { z } from "zod"` }, /no dependencies/],
  ["a barrel", { "client/index.ts": `export * from "./client.ts"` }, /re-exports/],
  ["a named barrel", { "client/index.ts": `export { connect } from "./client.ts"` }, /re-exports/],
  [
    "a circle",
    {
      "relay/hub.ts": `import { a } from "./lane.ts"`,
      "relay/lane.ts": `import { b } from "./connection.ts"`,
      "relay/connection.ts": `import { c } from "./hub.ts"`,
    },
    /circle: relay\/hub\.ts -> relay\/lane\.ts -> relay\/connection\.ts -> relay\/hub\.ts/,
  ],
]

t.test("each rule finds its offence", async (t) => {
  for (const [name, files, message] of OFFENCES) {
    const found = violations(files)
    t.equal(found.length, 1, `${name}: ${found.join("; ")}`)
    t.match(found[0], message, name)
  }
})

t.test("what looks like an offence and is none passes", async (t) => {
  t.strictSame(
    violations({
      "relay/listener.ts": `import pgListen from "pg-listen"\nawait query("select pg_notify($1, $2)")`,
      "relay/wire.ts": `import { WebSocket } from "ws"\nimport type { Lane } from "./lane.ts"`,
      "relay/lane.ts": `import { send } from "./wire.ts"\n// import x from "../api/app.ts"; "select 1"`,
      "relay/protocol.ts": `export const Action = z.enum(["update", "delete", "truncate", "insert"])`,
      "relay/config.ts": `throw new ConfigError("set DATABASE_URL, or pass --database-url; Select another with care")`,
      "relay/derived.ts": `export const text = "select 1"`,
      "relay/row.ts": `import { z } from "zod"\nconst quote = /["'\`]/g\nexport const at = "new Date() is not called"`,
      "client/client.ts": `import type { Change } from "../relay/change.ts"\nimport { next } from "./state.ts"`,
      "client/index.ts": `export const version = "1"\nimport { connect } from "./client.ts"`,
      "cli/doctor.ts": `await query("select 1")\nimport { WebSocket } from "ws"`,
    }),
    [],
  )
})
