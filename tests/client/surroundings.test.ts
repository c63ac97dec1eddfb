/** The client where something is missing: other globals, an address of an odd form. */

import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { build } from "esbuild"
import t, { type Test } from "tap"
import { connect } from "../../client/client.ts"
import { database } from "../helpers/database.ts"
import { openFeed } from "../helpers/feed.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { watchSockets } from "../helpers/watched-socket.ts"

const ROOT = new URL("../..", import.meta.url).pathname

/** Runs a program with the library in it in a process of its own. @returns what it printed. */
async function run(t: Test, program: string, env: Record<string, string> = {}): Promise<string> {
  const built = await build({
    absWorkingDir: ROOT,
    stdin: { contents: program, resolveDir: ROOT, loader: "ts" },
    bundle: true,
    write: false,
    format: "cjs",
    platform: "node",
    external: ["ws"],
    logLevel: "silent",
  })
  t.same(built.warnings, [])
  const args = ["-u", "NODE_OPTIONS", process.execPath, "-e", built.outputFiles[0]?.text ?? ""]
  const { stdout } = await promisify(execFile)("env", args, { cwd: ROOT, env: { ...process.env, ...env } })
  return stdout.trim()
}

t.test("no global is needed that may be missing, and of URL only that it can be read", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const out = await run(
    t,
    `
    import { WebSocket } from "ws"
    import { connect } from "./client/client.ts"
    for (const name of ["performance", "sessionStorage", "queueMicrotask", "fetch", "AbortSignal", "structuredClone", "TextEncoder", "atob", "navigator"])
      Object.defineProperty(globalThis, name, { value: undefined, configurable: true, writable: true })
    // As that of React Native: most of it is not implemented.
    globalThis.URL = class {
      #text
      constructor(text, base) { this.#text = base ? base + text : text }
      get href() { return this.#text.endsWith("/") ? this.#text : this.#text + "/" }
      get searchParams() { throw new Error("not implemented") }
      set protocol(_) { throw new Error("not implemented") }
    }
    const feed = connect({ url: "${relay.url}/ws#x", token: process.env.TOKEN, WebSocket, resync: async () => undefined })
    feed.on("state", ({ kind }) => { if (kind === "live") feed.subscribe(["committee:1"]).then(() => { console.log(kind); feed.close() }) })
    feed.on("error", (error) => { console.log(String(error)); feed.close() })
    `,
    { TOKEN: token() },
  )
  t.equal(out, "live")
})

t.test("to import it needs nothing at all, as where pages are made on a server", async (t) => {
  const out = await run(
    t,
    `
    for (const name of Object.getOwnPropertyNames(globalThis))
      if (/^(WebSocket|document|window|navigator|location|performance|URL|fetch|sessionStorage|AbortController)$/.test(name))
        Object.defineProperty(globalThis, name, { get() { throw new Error(name) } })
    import("./client/client.ts").then(({ connect }) => console.log(typeof connect))
    `,
  )
  t.equal(out, "function")
})

t.test("an address is taken as people write it", async (t) => {
  const addresses: Array<[url: string, asked: string]> = [
    ["http://relay", "ws://relay/ws?channels=election_updates"],
    ["https://relay/", "wss://relay/ws?channels=election_updates"],
    ["wss://relay:8443/live#x", "wss://relay:8443/live?channels=election_updates"],
    ["WSS://relay/ws?via=a&channels=b#x", "wss://relay/ws?via=a&channels=election_updates"],
  ]
  for (const [url, asked] of addresses) {
    const { WebSocket, urls } = watchSockets()
    const { reaches } = openFeed(t, { url, WebSocket })
    await reaches("opening")
    t.same(urls, [asked])
  }
  for (const url of ["ftp://relay/ws", "relay.example.org", "", "ws://"])
    t.throws(() => connect({ url, token: "x", WebSocket: watchSockets().WebSocket }), TypeError, url)
})

t.test("closed in the task in which it was made, and made anew, it works", async (t) => {
  const relay = await startRelay(t, await database(t))
  const { feed } = openFeed(t, { url: relay.url })
  feed.close()
  const again = openFeed(t, { url: relay.url })
  await again.reaches("live")
  t.equal(feed.state.kind, "closed")
})
