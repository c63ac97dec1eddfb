/** The client that is not let in: why is told in words, it is tried again, and it comes in once it can. */

import { createServer, type RequestListener } from "node:http"
import type { AddressInfo } from "node:net"
import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { openFeed } from "../helpers/feed.ts"
import { startProxy } from "../helpers/proxy.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 8

/** A server that makes no WebSocket of anything. */
async function serve(t: Test, answer: RequestListener): Promise<string> {
  const server = createServer(answer)
  server.on("upgrade", (_request, socket) =>
    socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"),
  )
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const json =
  (status: number, error: string, message: string): RequestListener =>
  (_request, response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error, message }))
  }

const CASES: Array<[who: string, answer: RequestListener, told: RegExp]> = [
  [
    "a relay that refuses the origin",
    json(403, "origin", "add it to ALLOWED_ORIGINS"),
    /403 origin: add it to ALLOWED_ORIGINS/,
  ],
  ["a relay that is full", json(429, "connections", "come back later"), /429 connections: come back later/],
  [
    "a proxy that takes away the upgrade",
    json(426, "upgrade_required", "open a WebSocket"),
    /a proxy on the way takes away Upgrade/,
  ],
  [
    "a proxy that wants credentials",
    (_request, response) => response.writeHead(401).end("who?"),
    /401, and not from the relay/,
  ],
  [
    "a sign-in page",
    (_request, response) => response.writeHead(302, { location: "/login" }).end(),
    /redirected/,
  ],
  [
    "a captive portal",
    (_request, response) =>
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end("<html>"),
    /200 with text\/html, and not from the relay/,
  ],
  ["another server", (_request, response) => response.writeHead(404).end(), /no relay under this path/],
]

for (const [who, answer, told] of CASES) {
  t.test(`by ${who}`, async (t) => {
    const asked: string[] = []
    const url = await serve(t, (request, response) => {
      asked.push(`${request.method} ${request.url}`)
      answer(request, response)
    })
    const { errors, came, feed } = openFeed(t, { url: `${url}/ws?via=proxy` })
    await came("waiting", 6)
    await until("it is told", () => errors.length === 1)
    t.match(errors, [{ code: "connection", message: told }])
    t.match(errors[0], { message: /^closed with 1006/ })
    t.same(asked, ["GET /ws?via=proxy"], "it is asked once")
    t.not(feed.state.kind, "closed")
  })
}

t.test("by a relay that is full, in the relay's own words", async (t) => {
  const relay = await startRelay(t, await database(t), { MAX_CONNECTIONS: "1" })
  await openFeed(t, { url: relay.url }).reaches("live")
  const { errors, came, feed } = openFeed(t, { url: relay.url })
  await came("waiting", 6)
  await until("it is told", () => errors.length === 1)
  t.match(errors, [{ code: "connection", message: /503 connections: / }])
  t.equal(feed.state.kind === "closed", false)
})

t.test("by nobody at all", async (t) => {
  const { errors, came } = openFeed(t, { url: "ws://127.0.0.1:1/ws" })
  await came("waiting", 6)
  await until("it is told", () => errors.length === 1)
  t.match(errors, [{ code: "connection", message: /a plain request fails too/ }])
})

t.test("where too many of the user are there, and one of them is dead", async (t) => {
  const relay = await startRelay(t, await database(t), { MAX_CONNECTIONS_PER_USER: "1" })
  const proxy = await startProxy(t, Number(new URL(relay.url).port))
  const url = `http://127.0.0.1:${proxy.port}`
  const { reaches, came, errors } = openFeed(t, { url })
  await reaches("live")
  const other = openFeed(t, { url, token: token() })
  await other.came("waiting", 6)
  t.match(other.errors, [{ code: "connection", message: /4504/ }, { code: "connection" }])
  proxy.cut()
  await until("one of them is in", () => relay.relay.status().hub.connections === 1)
  await came("waiting", 1)
  t.ok(errors.every(({ code }) => code === "connection"))
  t.not(other.feed.state.kind, "closed")
})

t.test("one that was revoked is out for good", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const { reaches, feed, errors } = openFeed(t, { url: relay.url })
  await reaches("live")
  const waiting = feed.subscribe(["committee:1"])
  await waiting
  await db.query("select relay.revoke('7')")
  await reaches("closed")
  t.match(errors, [{ code: "refused", message: /revoked/ }])
  await t.rejects(feed.subscribe(["committee:2"]), { code: "refused" })
})
