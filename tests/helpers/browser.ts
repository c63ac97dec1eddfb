/** A page in a real browser, one of this machine: none is ever downloaded. */

import { accessSync, constants, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { delimiter, join } from "node:path"
import type { AxeResults } from "axe-core"
import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type Page,
} from "playwright-core"
import root, { type Test } from "tap"
import { z } from "zod"
import { DEADLINE_MS } from "./wait.ts"

const NAMES = ["chromium", "chromium-browser", "google-chrome"]
/** Whoever takes the relay away finds these in the console, as a person would. */
const EXPECTED = /WebSocket connection to|Failed to load resource|net::ERR_/
const WATCH_POLICY = `document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  complain(violatedDirective + " forbids " + blockedURI))`

const executable = find()

/** The reason to skip tests that need a browser, or false. */
export const NO_BROWSER =
  executable === undefined &&
  "no browser on this machine: install Debian's chromium, or say where one is in CHROMIUM_PATH"

export interface Visit {
  page: Page
  context: BrowserContext
  /** What no page of ours does: it asks other origins, breaks its content security policy, throws, or complains in the console. */
  complaints: string[]
}

export interface VisitOptions extends BrowserContextOptions {
  /** The page's clock can be moved, by `page.clock`. */
  clock?: boolean
}

/** Opens an address in a context of its own, closed with the test. @param options such as the width, the theme, the locale. */
export async function visit(
  t: Test,
  url: string,
  { clock = false, ...options }: VisitOptions = {},
): Promise<Visit> {
  const context = await (await browser()).newContext({ locale: "en-GB", timezoneId: "UTC", ...options })
  t.teardown(() => context.close())
  context.setDefaultTimeout(DEADLINE_MS)
  if (clock) await context.clock.install()
  const complaints: string[] = []
  const { host } = new URL(url)
  const look = (asked: string) => {
    const { protocol, host: other } = new URL(asked)
    if (/^(http|ws)s?:$/.test(protocol) && other !== host) complaints.push(`asked ${asked}`)
  }
  await context.exposeFunction("complain", (text: string) => complaints.push(text))
  await context.addInitScript({ content: WATCH_POLICY })
  context.on("request", (request) => look(request.url()))
  context.on("weberror", (error) => complaints.push(`threw ${error.error().message}`))
  context.on("console", (message) => {
    if (message.type() === "error" && !EXPECTED.test(message.text()))
      complaints.push(`wrote ${message.text()}`)
  })
  const page = await context.newPage()
  page.on("websocket", (socket) => look(socket.url()))
  await page.goto(url)
  return { page, context, complaints }
}

/** The serious and critical findings of axe, each with the elements that it is about. */
export async function seriousFindings(page: Page): Promise<string[]> {
  // A colour on its way has a contrast that nobody sees for long.
  await page.evaluate(
    "Promise.allSettled(document.getAnimations().filter(({ effect }) => effect.getComputedTiming().endTime < Infinity).map(({ finished }) => finished))",
  )
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"))
  const { violations } = await page.evaluate<AxeResults>("axe.run()")
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(
      ({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html.slice(0, 160)).join(" | ")}`,
    )
}

let running: Promise<Browser> | undefined

/** One for the file's tests, started by the first. */
function browser(): Promise<Browser> {
  running ??= start()
  return running
}

async function start(): Promise<Browser> {
  const started = await chromium.launch({
    executablePath: z.string().parse(executable),
    // Its sandbox does not work for root.
    chromiumSandbox: process.getuid?.() !== 0,
    timeout: DEADLINE_MS,
  })
  root.teardown(() => started.close())
  return started
}

function find(): string | undefined {
  const named = process.env.CHROMIUM_PATH
  const places = (process.env.PATH ?? "").split(delimiter)
  const candidates =
    named === undefined ? NAMES.flatMap((name) => places.map((place) => join(place, name))) : [named]
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
