/** The client as others get it: its size, and what `commitcast/client` is in Node and in a browser's program. */

import { execFile } from "node:child_process"
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"
import t from "tap"

const ROOT = dirname(fileURLToPath(import.meta.resolve("#root/package.json")))
// Not bin/tsc, which has no extension: tap's hooks would take it for CommonJS.
const TSC = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "lib/tsc.js")
const MOST_BYTES = 8 * 1_024

/** Runs a program of Node. @returns what it printed, with what it complained about. */
async function run(cwd: string, ...args: string[]): Promise<string> {
  const ended = promisify(execFile)(process.execPath, args, { cwd, env: { PATH: process.env.PATH ?? "" } })
  const { stdout, stderr } = await ended.catch((error: { stdout: string; stderr: string }) => error)
  return stdout + stderr
}

t.test("it is one file without dependencies, under 8 KB minified and compressed", async (t) => {
  const built = await build({
    absWorkingDir: ROOT,
    entryPoints: ["client/client.ts"],
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2022",
    metafile: true,
    logLevel: "silent",
  })
  t.same(built.warnings, [])
  const inputs = Object.keys(built.metafile.inputs)
  t.same(
    inputs.filter((path) => !path.startsWith("client/")),
    [],
    "nothing but client/ is in it",
  )
  const bytes = gzipSync(built.outputFiles[0]?.contents ?? "").length
  t.comment(`${bytes} bytes`)
  t.ok(bytes < MOST_BYTES, `${bytes} bytes`)
})

const PROGRAM = `
import { connect, type Feed } from "commitcast/client"

interface Vote { id: number; votes: number }

const feed: Feed<{ voting_update: Vote }> = connect<{ voting_update: Vote }>({
  url: "/ws",
  getToken: async () => (await fetch("/token")).text(),
  storage: sessionStorage,
  WebSocket,
  page: { window, document, navigator },
  resync: async ({ signal }) => (await fetch("/state", { signal })).json(),
})
feed.on("voting_update", (change) => {
  const votes: number = change.action === "create" ? change.data.votes : 0
  document.title = String(votes)
})
`

t.test("commitcast/client is found by Node and by TypeScript, in a browser's program too", async (t) => {
  const home = await mkdtemp(join(tmpdir(), "commitcast-client-"))
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const installed = join(home, "node_modules/commitcast")
  await mkdir(installed, { recursive: true })
  t.equal(await run(ROOT, TSC, "-p", "tsconfig.build.json", "--outDir", join(installed, "dist")), "")
  await symlink(join(ROOT, "package.json"), join(installed, "package.json"))
  await symlink(join(ROOT, "node_modules/zod"), join(home, "node_modules/zod"))
  await writeFile(join(home, "package.json"), '{ "type": "module" }')
  await writeFile(
    join(home, "program.js"),
    `import { connect } from "commitcast/client"
     try { connect({ url: "ws://127.0.0.1/" }) } catch (error) { console.log(error.message) }`,
  )
  t.match(
    await run(home, "--preserve-symlinks", "program.js"),
    /there is no WebSocket here|a token or getToken/,
  )
  await writeFile(join(home, "program.ts"), PROGRAM)
  const options = [
    "--strict",
    "--noEmit",
    "--module",
    "nodenext",
    "--target",
    "es2022",
    "--lib",
    "es2022,dom",
  ]
  const check = () => run(home, TSC, ...options, "--preserveSymlinks", "program.ts")
  t.equal(await check(), "")
  await writeFile(join(home, "program.ts"), PROGRAM.replace("change.data.votes", "change.data.voters"))
  t.match(await check(), /voters/)
})
