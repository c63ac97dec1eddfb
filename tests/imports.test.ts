/** Holds the order of the house: who may import whom, as .dependency-cruiser.cjs says. Reads the sources, runs none. */

import { execFile } from "node:child_process"
import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import t from "tap"
import { z } from "zod"

const root = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
const PROGRAM = join(root, "node_modules/dependency-cruiser/bin/dependency-cruise.mjs")
const RULES = join(root, ".dependency-cruiser.cjs")
const FOLDERS = ["relay", "api", "cli", "client", "bench"]
const { forbidden } = createRequire(import.meta.url)(RULES) as { forbidden: Array<{ name: string }> }

const Summary = z.object({
  totalCruised: z.number(),
  violations: z.array(z.object({ rule: z.object({ name: z.string() }), from: z.string(), to: z.string() })),
})

/** What the rules find in a folder. As a program of its own, since tsx and the parser's classes do not get on. */
async function check(folder: string, roots: string[]): Promise<{ files: number; violations: string[] }> {
  const { NODE_OPTIONS: _, ...env } = process.env
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [PROGRAM, "--config", RULES, "--output-type", "json", ...roots],
    { cwd: folder, env, maxBuffer: 64 * 1_048_576 },
  ).catch((failed: { stdout: string }) => failed)
  const { totalCruised: files, violations } = z.object({ summary: Summary }).parse(JSON.parse(stdout)).summary
  return {
    files,
    violations: violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`).sort(),
  }
}

t.test("every source keeps the order of the house", async (t) => {
  const { files, violations } = await check(root, FOLDERS)
  t.ok(files > 250, `${files} files are found`)
  t.strictSame(violations, [])
})

/** By the rule that it breaks: a file, and what it imports. */
const OFFENCES: Record<string, [file: string, imports: string]> = {
  "no-circle": ["relay/fanout/lane.ts", "./wire.ts"],
  "relay-imports-no-later-folder": ["relay/hub/hub.ts", "../../api/app.ts"],
  "api-imports-no-later-folder": ["api/app.ts", "../cli/main.ts"],
  "client-imports-no-later-folder": ["client/client.ts", "../cli/main.ts"],
  "cli-imports-no-later-folder": ["cli/main.ts", "../bench/main.ts"],
  "bench-imports-no-later-folder": ["bench/main.ts", "../tests/helper.ts"],
  "relay-lib-imports-no-later-room": ["relay/lib/multimap.ts", "../change/row.ts"],
  "relay-change-imports-no-later-room": ["relay/change/change.ts", "../protocol/frame.ts"],
  "relay-protocol-imports-no-later-room": ["relay/protocol/encode.ts", "../telemetry/log.ts"],
  "relay-telemetry-imports-no-later-room": ["relay/telemetry/metrics.ts", "../access/auth.ts"],
  "relay-access-imports-no-later-room": ["relay/access/keys.ts", "../derived/value.ts"],
  "relay-derived-imports-no-later-room": ["relay/derived/definition.ts", "../feed/bell.ts"],
  "relay-feed-imports-no-later-room": ["relay/feed/feed.ts", "../fanout/router.ts"],
  "relay-fanout-imports-no-later-room": ["relay/fanout/flush.ts", "../replay/replay.ts"],
  "relay-replay-imports-no-later-room": ["relay/replay/log-reads.ts", "../hub/drain.ts"],
  "relay-hub-imports-no-later-room": ["relay/hub/sweep.ts", "../gateway/limits.ts"],
  "relay-gateway-imports-no-later-room": ["relay/gateway/gateway.ts", "../health/report.ts"],
  "relay-health-imports-no-later-room": ["relay/health/readiness.ts", "../workers/ipc.ts"],
  "relay-workers-imports-no-later-room": ["relay/workers/primary.ts", "../relay.ts"],
  "cli-embedded-imports-no-later-room": ["cli/embedded/port.ts", "../schema/install.ts"],
  "cli-schema-imports-no-later-room": ["cli/schema/track.ts", "../serve/server.ts"],
  "cli-serve-imports-no-later-room": ["cli/serve/worker.ts", "../doctor/schema.ts"],
  "cli-doctor-imports-no-later-room": ["cli/doctor/server.ts", "../demo/night.ts"],
  "cli-demo-imports-no-later-room": ["cli/demo/csv.ts", "../commands/start.ts"],
  "cli-commands-imports-no-later-room": ["cli/commands/tail.ts", "../main.ts"],
  "bench-clients-imports-no-later-room": ["bench/clients/load.ts", "../harness/hall.ts"],
  "bench-harness-imports-no-later-room": ["bench/harness/stage.ts", "../rivals/listen.ts"],
  "bench-rivals-imports-no-later-room": ["bench/rivals/plain.ts", "../output/table.ts"],
  "bench-output-imports-no-later-room": ["bench/output/charts.ts", "../groups/fanout.ts"],
  "bench-groups-imports-no-later-room": ["bench/groups/memory.ts", "../soak/crowd.ts"],
  "bench-soak-imports-no-later-room": ["bench/soak/writer.ts", "../soak.ts"],
  "workers-know-no-clients": ["relay/workers/forwarder.ts", "../hub/stats.ts"],
  "pages-share-only-what-is-shared": ["api/public/pages/dashboard/app.js", "../operations/trend.js"],
  "client-stands-alone": ["client/messages.ts", "../relay/protocol/server-message.ts"],
  "pure-rooms-do-no-io": ["relay/change/cursor.ts", "node:fs"],
  "only-the-listener-listens": ["cli/doctor/relay.ts", "pg-listen"],
  "only-the-socket-knows-ws": ["relay/hub/membership.ts", "ws"],
  "sql-has-its-places": ["relay/hub/age.ts", "pg"],
}

t.test("each rule finds its offence, in a type-only import too", async (t) => {
  const base = t.testdir({ "package.json": '{ "type": "module" }', "tsconfig.json": "{}" })
  await symlink(join(root, "node_modules"), join(base, "node_modules"))
  const imported = new Map<string, string[]>()
  for (const [file, specifier] of Object.values(OFFENCES)) {
    imported.set(file, [...(imported.get(file) ?? []), specifier])
    if (specifier.startsWith("."))
      imported.set(join(dirname(file), specifier), imported.get(join(dirname(file), specifier)) ?? [])
  }
  imported.set("relay/fanout/wire.ts", ["./lane.ts"])
  for (const [file, specifiers] of imported) {
    await mkdir(join(base, dirname(file)), { recursive: true })
    const words = file.endsWith(".js") ? "import * as x" : "import type * as x"
    await writeFile(
      join(base, file),
      specifiers.map((specifier, i) => `${words}${i} from "${specifier}"\n`).join(""),
    )
  }
  const { violations } = await check(base, [...FOLDERS, "tests"])
  t.strictSame(Object.keys(OFFENCES).sort(), forbidden.map(({ name }) => name).sort(), "every rule is tried")
  for (const [rule, [file, specifier]] of Object.entries(OFFENCES)) {
    t.ok(
      violations.some((violation) => violation.startsWith(`${rule}: ${file} -> `)),
      `${rule}: ${file} imports ${specifier}`,
    )
  }
})

t.test("the pure rooms read no clock and roll no dice", async (t) => {
  const CLOCK =
    /\bnew Date\(\)|\bDate\.now\b|\b(setTimeout|setInterval|setImmediate|queueMicrotask|performance|process|fetch)\b|\bMath\.random\b/
  for (const room of ["change", "protocol"]) {
    for (const file of await readdir(join(root, "relay", room))) {
      const code = (await readFile(join(root, "relay", room, file), "utf8")).replace(
        /\/\*[\s\S]*?\*\/|\/\/.*/g,
        "",
      )
      t.notMatch(code, CLOCK, `relay/${room}/${file}`)
    }
  }
})
