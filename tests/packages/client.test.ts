/** commitcast-client as others install it: alone, from JavaScript and TypeScript, in a page. */

import { readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import t from "tap"
import { build } from "vite"
import { checkTarball, finish, installed, pack, succeed, tool } from "../helpers/packed.ts"

const PROGRAM = `
import { connect, FeedError } from "commitcast-client"
import type { Change, Feed, FeedEvents, FeedErrorCode, FilterFields, Options, Page, Reason, ReloadReason, Resync, State, StorageLike, WebSocketConstructor } from "commitcast-client"

interface Vote { id: number; votes: number }

const resync: Resync = async ({ signal }) => (await fetch("/state", { signal })).json()
const where: FilterFields = { where: { votes: { gte: 100 } }, actions: ["create", "delete"] }
const storage: StorageLike = sessionStorage
const page: Page = { window, document, navigator }
const constructor: WebSocketConstructor = WebSocket
const token: string | undefined = document.cookie || undefined
const options: Options = { ...where, url: "/ws", token, getToken: async () => "token", storage, WebSocket: constructor, page, resync }
const feed: Feed<{ voting_update: Vote }> = connect<{ voting_update: Vote }>(options)
feed.on("voting_update", (change: Change<"voting_update", Vote>) => {
  if (change.action === "create" && change.data !== null) document.title = String(change.data.votes)
})
feed.on("state", (state: State) => state.kind === "waiting" && state.delayMs)
feed.on("resync", ({ reason }: { reason: Reason | ReloadReason }) => reason === "lineage")
feed.on("error", (error) => {
  const code: FeedErrorCode = error.code
  if (error instanceof FeedError) console.error(code)
})
feed.on("channels", ({ denied }) => denied.join())
document.title = feed.state.cause + new Date(feed.state.since).toLocaleTimeString()
export type Heard = FeedEvents<{ voting_update: Vote }>["message"]["payload"]
`
const WRONG = PROGRAM.replace("change.data.votes", "change.data.voters")

const STRICT = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--skipLibCheck", "false"]
const HERE = ["--types", "", "--target", "es2022", "--lib", "es2022,dom"]
const MODES: Array<[name: string, file: string, options: string[]]> = [
  ["a bundler", "bundled.ts", ["--module", "esnext", "--moduleResolution", "bundler"]],
  ["ES modules of node16", "module.mts", ["--module", "node16"]],
  ["CommonJS of node16", "common.cts", ["--module", "node16"]],
  ["ES modules of nodenext", "next.mts", ["--module", "nodenext"]],
]

t.test("commitcast-client", async (t) => {
  const client = await pack(t, "client")
  const project = await installed(t, client)
  const types = (file: string, options: string[]) =>
    finish(project, tool("tsc"), [...STRICT, ...HERE, ...options, file])

  t.test("it brings nothing with it", async (t) => {
    t.same(
      (await readdir(join(project, "node_modules"))).filter((name) => !name.startsWith(".")),
      ["commitcast-client"],
    )
    const shipped = await readdir(join(project, "node_modules/commitcast-client"))
    t.same(shipped.sort(), ["CHANGELOG.md", "LICENSE", "README.md", "dist", "package.json"])
  })

  t.test("JavaScript imports and requires it", async (t) => {
    const calls =
      'try { connect({ url: "ws://127.0.0.1/" }) } catch (error) { console.log(error.message, typeof FeedError) }'
    await writeFile(
      join(project, "program.mjs"),
      `import { connect, FeedError } from "commitcast-client"\n${calls}`,
    )
    await writeFile(
      join(project, "program.cjs"),
      `const { connect, FeedError } = require("commitcast-client")\n${calls}`,
    )
    for (const file of ["program.mjs", "program.cjs"])
      t.match(await succeed(project, process.execPath, [file]), {
        out: /^(there is no WebSocket here|a token or getToken).* function\n$/,
        err: "",
      })
  })

  for (const [name, file, options] of MODES) {
    t.test(`TypeScript, ${name}`, async (t) => {
      await writeFile(join(project, file), PROGRAM)
      t.match(await types(file, options), { code: 0, out: "" })
      await writeFile(join(project, file), WRONG)
      t.match(await types(file, options), { code: 1, out: /voters/ })
    })
  }

  t.test("Vite builds a page with it", async (t) => {
    await writeFile(join(project, "index.html"), '<script type="module" src="/page.ts"></script>')
    await writeFile(join(project, "page.ts"), PROGRAM)
    await build({ root: project, logLevel: "silent", configFile: false })
    const [script = ""] = await readdir(join(project, "dist/assets"))
    const text = await readFile(join(project, "dist/assets", script), "utf8")
    t.match(text, "commitcast.v1", "the client is in it")
    t.notMatch(text, /\b(import|require)\b ?[("]/, "and all that it needs")
  })

  t.test("publint and are-the-types-wrong find nothing", async (t) => {
    await t.resolves(checkTarball(client, "strict"), "in no resolution, node10's either")
  })
})
