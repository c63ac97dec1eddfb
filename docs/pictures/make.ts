/** Makes the README's pictures from a night of the demo, in a real browser. Needs Chromium, and psql on the path. */

import { type ChildProcess, execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { build } from "esbuild"
import { type Browser, chromium, type Page } from "playwright-core"
import { z } from "zod"

const HERE = fileURLToPath(new URL(".", import.meta.url))
const COMMAND = [
  "--import",
  import.meta.resolve("tsx"),
  fileURLToPath(new URL("../../cli/main.ts", import.meta.url)),
]
const DESKTOP = { width: 1280, height: 1100 }
const NIGHT_SECONDS = 60
/** The still pictures are taken when so much of the night is over. Milliseconds. */
const BEST_MS = 52_000

const STATEMENTS = [
  "insert into vote (election_id, committee_id, candidate_id, votes) values (1, 7, 2, 420);",
  "update vote set votes = 430 where votes = 420;",
  "delete from vote where votes = 430;",
]
const PROMPT = "election=> "
/** Of the terminal and the screen together. */
const STAGE = { width: 960, height: 910 }
const SCREEN = { width: 1200, height: 950 }
/** How long a frame is seen: while three keys are pressed, when a row has just come, when its totals have, at the end. Milliseconds. */
const PACE = { keys: 150, row: 1_000, totals: 2_000, end: 3_000 }
/** How long the row and the totals have to come. Milliseconds. */
const WAIT = { row: 300, totals: 1_500 }

const Ready = z.object({ url: z.string(), database_url: z.string() })

const directory = await mkdtemp(join(tmpdir(), "commitcast-pictures-"))
const env = { ...process.env, COMMITCAST_DIR: directory, PORT: "0" }
const relay = spawn(process.execPath, [...COMMAND, "start"], { env, stdio: ["ignore", "pipe", "inherit"] })
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_PATH ?? "/usr/bin/chromium",
  chromiumSandbox: process.getuid?.() !== 0,
})
try {
  const { url, database_url: databaseUrl } = await readiness(relay)
  const hash = `#token=${await commitcast("token", "--user", "1", "--admin")}`
  await Promise.all([
    commitcast("demo", "--seconds", String(NIGHT_SECONDS), "--speed", "40"),
    takeStills(browser, url, hash),
  ])
  await writeFile(join(HERE, "psql-to-screen.gif"), await record(browser, `${url}/${hash}`, databaseUrl))
} finally {
  await browser.close()
  relay.kill("SIGINT")
  await once(relay, "exit")
  await rm(directory, { recursive: true })
}

async function readiness(relay: ChildProcess): Promise<z.infer<typeof Ready>> {
  if (relay.stdout === null) throw new Error("the relay's output is not read")
  for await (const line of createInterface(relay.stdout)) return Ready.parse(JSON.parse(line))
  throw new Error("the relay ended before it was ready")
}

/** Runs a command to its end. @returns what it printed. */
async function commitcast(...args: string[]): Promise<string> {
  return (await promisify(execFile)(process.execPath, [...COMMAND, ...args], { env })).stdout.trim()
}

async function takeStills(browser: Browser, url: string, hash: string): Promise<void> {
  const open = async (colorScheme: "light" | "dark"): Promise<Page> => {
    const context = await browser.newContext({
      colorScheme,
      viewport: DESKTOP,
      deviceScaleFactor: 2,
      locale: "en-GB",
    })
    const page = await context.newPage()
    await page.goto(`${url}/${hash}`)
    return page
  }
  const pages = { dashboard: await open("light"), "dashboard-dark": await open("dark") }
  await pages.dashboard.waitForTimeout(BEST_MS)
  for (const [name, page] of Object.entries(pages)) {
    await page.screenshot({ path: join(HERE, `${name}.png`) })
    await page.context().close()
  }
}

/** A row goes from psql to the screen, and its totals follow. @returns a GIF. */
async function record(browser: Browser, link: string, databaseUrl: string): Promise<Buffer> {
  const context = await browser.newContext({ viewport: SCREEN, locale: "en-GB" })
  const dashboard = await context.newPage()
  await dashboard.goto(link)
  await dashboard.locator("#state").getByText("Live", { exact: true }).waitFor()
  await dashboard.locator(".committee").first().waitFor()
  const stage = await context.newPage()
  await stage.setViewportSize(STAGE)
  await stage.setContent(await readFile(join(HERE, "stage.html"), "utf8"))
  const { outputFiles } = await build({
    entryPoints: [join(HERE, "stage.js")],
    bundle: true,
    write: false,
  })
  await stage.addScriptTag({ content: outputFiles[0]?.text ?? "" })
  const call = (name: string, ...values: unknown[]) =>
    stage.evaluate<string>(`stage.${name}(${values.map((value) => JSON.stringify(value)).join()})`)

  let text = PROMPT
  async function keep(delay: number): Promise<void> {
    await call("show", text, (await dashboard.screenshot()).toString("base64"))
    await call("keep", (await stage.screenshot()).toString("base64"), delay)
  }
  await keep(PACE.row)
  for (const statement of STATEMENTS) {
    for (const keys of statement.match(/.{1,3}/g) ?? []) {
      text += keys
      await keep(PACE.keys)
    }
    const { stdout } = await promisify(execFile)("psql", [databaseUrl, "-c", statement])
    text += `\n${stdout.trim()}\n${PROMPT}`
    await dashboard.waitForTimeout(WAIT.row)
    await keep(PACE.row)
    await dashboard.waitForTimeout(WAIT.totals)
    await keep(statement === STATEMENTS.at(-1) ? PACE.end : PACE.totals)
  }
  const gif = Buffer.from(await call("encode"), "base64")
  await context.close()
  return gif
}
