/** The page in a browser, under its content policy: it works, and nothing in it asks for what the policy forbids. */

import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import t, { type Test } from "tap"
import { WebSocket } from "ws"
import { z } from "zod"
import { workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync)
/** To start may take a browser long on a busy machine. Milliseconds. */
const START_MS = 60_000

const Answer = z.object({ id: z.number(), result: z.unknown() })
const Complaint = z.object({
  method: z.enum(["Log.entryAdded", "Runtime.exceptionThrown"]),
  params: z.unknown(),
})

/** A browser's tab by its debugging protocol. */
async function openTab(t: Test, chromium: string) {
  const directory = await workDirectory(t)
  const browser = spawn(
    chromium,
    [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--remote-debugging-port=0",
      `--user-data-dir=${directory}`,
    ],
    { stdio: "ignore" },
  )
  const ended = new Promise((resolve) => browser.once("exit", resolve))
  t.teardown(async () => {
    browser.kill("SIGKILL")
    await ended
  })
  const file = join(directory, "DevToolsActivePort")
  const port = () => (existsSync(file) ? readFileSync(file, "utf8").split("\n")[0] : "")
  await until("the browser listens", () => port() !== "", START_MS)
  const made = await fetch(`http://127.0.0.1:${port()}/json/new`, { method: "PUT" })
  const { webSocketDebuggerUrl } = z.object({ webSocketDebuggerUrl: z.string() }).parse(await made.json())
  const socket = new WebSocket(webSocketDebuggerUrl)
  t.teardown(() => socket.terminate())
  await new Promise((resolve) => socket.once("open", resolve))
  const answers = new Map<number, unknown>()
  const complaints: unknown[] = []
  socket.on("message", (data) => {
    const message: unknown = JSON.parse(data.toString())
    const answer = Answer.safeParse(message).data
    if (answer !== undefined) answers.set(answer.id, answer.result)
    const complaint = Complaint.safeParse(message).data
    if (complaint !== undefined) complaints.push(complaint.params)
  })
  let asked = 0
  async function ask(method: string, params: object = {}): Promise<unknown> {
    const id = ++asked
    socket.send(JSON.stringify({ id, method, params }))
    await until(method, () => answers.has(id))
    return answers.get(id)
  }
  await ask("Log.enable")
  await ask("Runtime.enable")
  return {
    complaints,
    visit: (url: string) => ask("Page.navigate", { url }),
    /** What an expression is on the page. */
    async see(expression: string): Promise<unknown> {
      const result = await ask("Runtime.evaluate", { expression })
      return z.object({ result: z.object({ value: z.unknown().optional() }) }).parse(result).result.value
    },
  }
}

t.test(
  "the page shows changes in a browser that holds it to its policy",
  { skip: CHROMIUM === undefined && "no chromium on this machine" },
  async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db)
    const tab = await openTab(t, CHROMIUM ?? "")
    await tab.visit(`${relay.url}/#token=${token()}`)
    await until(
      "it is live",
      async () => (await tab.see("document.documentElement.dataset.state")) === "live",
    )
    await db.query("insert into vote (votes) values (471147)")
    await until("the row is shown", async () => {
      const text = String(await tab.see("document.body.innerText"))
      return /471[,.\u202f ]?147/.test(text)
    })
    t.strictSame(tab.complaints, [], "nothing was forbidden, nothing failed")
    await tab.see(
      `document.head.append(Object.assign(document.createElement("style"), { textContent: "a{}" }))`,
    )
    await until("it is held to it", () => JSON.stringify(tab.complaints).includes("Content Security Policy"))
    t.equal(await tab.see("location.hash"), "", "the token has left the address")
  },
)
