/** The descriptions under /docs/: valid by the rules of their formats, and true. */

import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { Validator } from "@seriousme/openapi-schema-validator"
import { Ajv } from "ajv"
import formats from "ajv-formats"
import t from "tap"
import { CloseCode } from "../../relay/protocol/close-code.ts"
import { NO_BROWSER, seriousFindings, visit } from "../helpers/browser.ts"
import { database } from "../helpers/database.ts"
import { answerFault, asyncApiOf, openApiOf, payloadCheck } from "../helpers/described.ts"
import { launchRelay, startRelay, token } from "../helpers/relay.ts"

const PROTOCOL = fileURLToPath(new URL("../../docs/PROTOCOL.md", import.meta.url))
/** As https://www.asyncapi.com publishes it. */
const ASYNCAPI = createRequire(import.meta.url).resolve("@asyncapi/specs/schemas/3.0.0-without-$id.json")
const bearer = (claims: object) => ({ authorization: `Bearer ${token({ ...claims })}` })

t.test("they are valid AsyncAPI and OpenAPI", async (t) => {
  const { url } = await startRelay(t, await database(t))
  const ajv = new Ajv({ strict: false, logger: false })
  formats.default(ajv)
  const check = ajv.compile(JSON.parse(readFileSync(ASYNCAPI, "utf8")))
  const sockets = await asyncApiOf(url)
  t.ok(check(sockets), JSON.stringify(check.errors?.slice(0, 5)))
  t.notOk(
    check({ ...sockets, operations: { send: { action: "shout" } } }),
    "and what checks them would say so",
  )
  const requests = await openApiOf(url)
  t.match(await new Validator().validate(requests), { valid: true })
  t.match(await new Validator().validate({ ...requests, paths: { "/": { get: 1 } } }), { valid: false })
})

t.test("each message has words and an example that is one", async (t) => {
  const { url } = await startRelay(t, await database(t), { WS_PATH: "/elsewhere" })
  const sockets = await asyncApiOf(url)
  t.equal(sockets.channels.feed.address, "/elsewhere")
  const check = payloadCheck(sockets)
  for (const { name, summary, examples } of Object.values(sockets.components.messages)) {
    t.ok(summary.length > 5, name)
    t.equal(check(name, examples[0]?.payload), undefined, name)
  }
})

t.test("what docs/PROTOCOL.md shows fits what they say", async (t) => {
  const { url } = await startRelay(t, await database(t))
  const sockets = await asyncApiOf(url)
  const check = payloadCheck(sockets)
  const text = readFileSync(PROTOCOL, "utf8")
  const shown = [...text.matchAll(/`(\{"type": "(\w+)".*?\})`/g)]
  const names = new Set<string>()
  for (const [, message = "", type = ""] of shown) {
    if (!(`client.${type}` in sockets.components.messages)) continue
    t.equal(check(`client.${type}`, JSON.parse(message)), undefined, message)
    names.add(type)
  }
  t.same([...names].sort(), ["authenticate", "ping", "pong", "start", "subscribe", "unsubscribe"])
  const closes = Object.keys(sockets.channels.feed["x-close-codes"]).map(Number)
  t.same(closes.sort(), Object.values(CloseCode).sort())
  for (const code of closes) t.match(text, `\n| ${code} | `, "and the document has each code")
})

t.test("the answers to requests are as they say", async (t) => {
  const secret = "what the metrics want to be asked with"
  const { url } = await startRelay(t, await database(t), { METRICS_TOKEN: secret })
  const requests = await openApiOf(url)
  const report = "/api/utils/websocket/health/"
  const asked: Array<[path: string, status: number, headers?: Record<string, string>]> = [
    [report, 200, bearer({ role: "admin" })],
    [`${report}?top=3`, 200, bearer({ role: "admin" })],
    [report, 401],
    [report, 403, bearer({})],
    ["/health/live", 200],
    ["/health/ready", 200],
    ["/metrics", 200, { authorization: `Bearer ${secret}` }],
    ["/metrics", 401],
    ["/page.json", 200],
    ["/ws", 426],
    ["/ws?channels=A", 400],
    ["/ws?token=x", 401],
  ]
  for (const [path, status, headers] of asked)
    t.same(await answerFault(url, requests, path, headers), { status, fault: undefined }, `${path} ${status}`)
  const unready = await launchRelay(t, { url: "postgres://nobody@127.0.0.1:1/nowhere" })
  for (const path of ["/health/ready", "/ws"])
    t.same(await answerFault(unready.url, requests, path), { status: 503, fault: undefined }, path)
})

t.test("the page has all of it, for everybody", { skip: NO_BROWSER }, async (t) => {
  const { url } = await startRelay(t, await database(t))
  const { page, complaints } = await visit(t, `${url}/docs`)
  t.equal(page.url(), `${url}/docs/`)
  for (const scheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme: scheme })
    t.same(await seriousFindings(page), [], scheme)
  }
  const text = (await page.locator("main").textContent()) ?? ""
  const sockets = await asyncApiOf(url)
  for (const { summary } of Object.values(sockets.components.messages)) t.ok(text.includes(summary), summary)
  for (const code of Object.keys(sockets.channels.feed["x-close-codes"])) t.ok(text.includes(code), code)
  for (const path of Object.keys((await openApiOf(url)).paths)) t.ok(text.includes(path), path)
  const links = await page.evaluate<string[]>(
    "[...document.querySelectorAll('nav a')].map((link) => link.getAttribute('href'))",
  )
  for (const link of links) if (link.startsWith("#")) t.equal(await page.locator(link).count(), 1, link)
  t.same(complaints, [])
})
