/**
 * Who may import whom, type-only imports included. tests/imports.test.ts runs these rules and proves each of them;
 * docs/ARCHITECTURE.md says what the rooms are for.
 */

/** The rooms of relay/, lowest first: a file imports its own room, relay/config.ts and rooms before it. */
const RELAY_ROOMS = [
  "lib",
  "change",
  "protocol",
  "telemetry",
  "access",
  "derived",
  "feed",
  "fanout",
  "replay",
  "hub",
  "gateway",
  "health",
  "workers",
]
/** Gateway and below serve clients of one process; workers carry the feed to several, and know none of it. */
const NOT_OF_WORKERS = ["fanout", "replay", "hub", "gateway"]
const CLI_ROOMS = ["embedded", "schema", "serve", "doctor", "demo", "commands"]
const BENCH_ROOMS = ["clients", "harness", "rivals", "output", "groups", "soak"]
/** The parts of the product, lowest first. */
const FOLDERS = ["relay", "api", "client", "cli", "bench"]

const folders = (names) => `^(${names.join("|")})/`
const rooms = (folder, names) => `^${folder}/(${names.join("|")})/`

/** One rule a room: nothing of it imports a later one, or what stands beside the rooms and wires them. */
const inOrder = (folder, names, wiring) =>
  names.map((name, i) => ({
    name: `${folder}-${name}-imports-no-later-room`,
    severity: "error",
    from: { path: `^${folder}/${name}/` },
    to: { path: [...names.slice(i + 1).map((later) => `^${folder}/${later}/`), ...wiring] },
  }))

const onlyIn = (name, module, files, from = folders(["relay", "api", "client"])) => ({
  name,
  severity: "error",
  from: { path: from, pathNot: files },
  to: { path: `node_modules/(@types/)?${module}/` },
})

module.exports = {
  forbidden: [
    { name: "no-circle", severity: "error", from: {}, to: { circular: true } },
    ...FOLDERS.map((name, i) => ({
      name: `${name}-imports-no-later-folder`,
      severity: "error",
      from: { path: `^${name}/` },
      to: { path: folders([...FOLDERS.slice(i + 1), "tests", "docs", "examples"]) },
    })),
    ...inOrder("relay", RELAY_ROOMS, ["^relay/relay\\.ts$"]),
    ...inOrder("cli", CLI_ROOMS, ["^cli/main\\.ts$"]),
    ...inOrder("bench", BENCH_ROOMS, ["^bench/(main|soak)\\.ts$"]),
    {
      name: "workers-know-no-clients",
      severity: "error",
      from: { path: "^relay/workers/" },
      to: { path: rooms("relay", NOT_OF_WORKERS) },
    },
    {
      name: "pages-share-only-what-is-shared",
      severity: "error",
      from: { path: "^api/public/pages/([^/]+)/" },
      to: { path: "^api/public/pages/", pathNot: ["^api/public/pages/$1/", "^api/public/pages/shared/"] },
    },
    {
      name: "client-stands-alone",
      severity: "error",
      from: { path: "^client/" },
      to: { pathNot: "^client/" },
    },
    {
      name: "pure-rooms-do-no-io",
      severity: "error",
      from: { path: ["^relay/change/", "^relay/protocol/"] },
      to: { pathNot: ["^relay/", "node_modules/zod/", "^(node:)?(buffer|crypto|util)$"] },
    },
    onlyIn(
      "only-the-listener-listens",
      "pg-listen",
      "^relay/feed/listen-session\\.ts$",
      "^(relay|api|cli|client)/",
    ),
    onlyIn("only-the-socket-knows-ws", "ws", [
      "^relay/gateway/(gateway|client-socket)\\.ts$",
      "^relay/fanout/(connection|wire)\\.ts$",
    ]),
    // Whoever has no driver holds no SQL.
    onlyIn("sql-has-its-places", "pg", [
      "^relay/lib/(bound-client|database|pinned-client)\\.ts$",
      "^relay/feed/(changelog|log-connection|log-query)\\.ts$",
      "^relay/derived/runner\\.ts$",
    ]),
  ],
  options: {
    // TypeScript 7 has no API to parse with.
    parser: "swc",
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    doNotFollow: { path: "node_modules" },
    exclude: { path: "(^|/)dist/|^\\.tap/" },
  },
}
