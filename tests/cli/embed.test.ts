/** A relay within a program: its settings, its start and its end. */

import { createServer } from "node:http"
import { type AddressInfo, connect } from "node:net"
import type { Duplex } from "node:stream"
import t, { type Test } from "tap"
import { ConfigError, createRelay, type RelayOptions } from "../../cli/serve/embed.ts"
import { openClient } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { startProxy } from "../helpers/proxy.ts"
import { SECRET, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** One that logs nothing, attached to a server; stopped with the test. */
async function embed(t: Test, options: RelayOptions) {
  const relay = createRelay({ jwtSecret: SECRET, logLevel: "silent", canarySeconds: 0, ...options })
  const server = createServer((request, response) => {
    if (!relay.answer(request, response)) response.end("the program's")
  })
  relay.attach(server)
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.teardown(async () => {
    await relay.stop()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { relay, server, address: `127.0.0.1:${port}` }
}

t.test(
  "it installs its schema, serves clients beside the program's requests, and ends in order",
  async (t) => {
    const db = await database(t, { empty: true })
    await db.query("create table vote (id int primary key, votes int)")
    const { relay, address } = await embed(t, {
      databaseUrl: db.url,
      allowedOrigins: ["https://app.example"],
    })
    t.match(relay.status(), { ready: false, problems: [/./] })
    await relay.start()
    t.match(relay.status(), { ready: true, problems: [], connections: 0 })
    t.equal(await (await fetch(`http://${address}/`)).text(), "the program's")
    t.match(await (await fetch(`http://${address}/ws`)).json(), { error: "upgrade_required" })
    const client = await openClient(t, `ws://${address}/ws?token=${token()}`, {
      origin: "https://app.example",
    })
    await client.first("connection_success", ({ type }) => type === "connection_success")
    await db.query("insert into vote values (1, 42)")
    t.match((await client.count(1))[0], { type: "voting_update", data: { votes: 42 } })
    t.equal(relay.status().connections, 1)
    t.match(await relay.metrics(), /^relay_connections 1$/m)
    await Promise.all([relay.stop(), relay.stop()])
    t.equal((await client.closed).code, 4000)
    t.equal(await (await fetch(`http://${address}/`)).text(), "the program's", "the server is not its own")
  },
)

t.test("of a server with other WebSockets it takes its own path alone", async (t) => {
  const db = await database(t)
  const { relay, server, address } = await embed(t, { databaseUrl: db.url })
  server.on("upgrade", (request, socket) => {
    if (request.url === "/other") socket.end("HTTP/1.1 418 Teapot\r\nConnection: close\r\n\r\n")
  })
  await relay.start()
  await t.rejects(openClient(t, `ws://${address}/other`), /418/)
  const client = await openClient(t, `ws://${address}/ws?token=${token()}`)
  await client.first("connection_success", ({ type }) => type === "connection_success")
})

t.test("an upgrade that nobody takes harms no program when its client hangs up", async (t) => {
  const db = await database(t)
  const { server, address } = await embed(t, { databaseUrl: db.url })
  let taken: Duplex | undefined
  server.on("upgrade", (_request, socket: Duplex) => {
    taken = socket
  })
  const client = connect(Number(new URL(`http://${address}`).port), "127.0.0.1")
  client.on("error", () => {})
  client.write("GET /nobody HTTP/1.1\r\nHost: it\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
  await until("the upgrade has come", () => taken !== undefined)
  client.resetAndDestroy()
  await until("its socket is gone", () => taken?.destroyed === true)
})

t.test("relays that share a server take a path each, and what is for none is refused once", async (t) => {
  const db = await database(t)
  const { relay, server, address } = await embed(t, { databaseUrl: db.url, wsPath: "/one" })
  const other = createRelay({ databaseUrl: db.url, jwtSecret: SECRET, logLevel: "silent", wsPath: "/two" })
  t.teardown(() => other.stop())
  other.attach(server)
  relay.attach(server)
  await Promise.all([relay.start(), other.start()])
  for (const path of ["/one", "/two"]) {
    const client = await openClient(t, `ws://${address}${path}?token=${token()}`)
    await client.first("connection_success", ({ type }) => type === "connection_success")
  }
  await t.rejects(openClient(t, `ws://${address}/three`), /404/)
})

t.test("a relay that is stopped leaves its path to the next one", async (t) => {
  const db = await database(t)
  const { relay, server, address } = await embed(t, { databaseUrl: db.url })
  await relay.start()
  await relay.stop()
  t.equal(server.listenerCount("upgrade"), 0)
  const next = createRelay({ databaseUrl: db.url, jwtSecret: SECRET, logLevel: "silent" })
  t.teardown(() => next.stop())
  next.attach(server)
  await next.start()
  const client = await openClient(t, `ws://${address}/ws?token=${token()}`)
  await client.first("connection_success", ({ type }) => type === "connection_success")
})

t.test("stopped while it waits for the database, it is over at once", async (t) => {
  const db = await database(t)
  const proxy = await startProxy(t, db.port)
  proxy.refuse()
  const { relay } = await embed(t, { databaseUrl: db.url.replace(`:${db.port}/`, `:${proxy.port}/`) })
  const started = relay.start()
  await relay.stop()
  await t.resolves(started)
  t.equal(relay.status().ready, false)
})

t.test("a database that it cannot work with is an error of the start", async (t) => {
  const db = await database(t)
  const { relay } = await embed(t, { databaseUrl: `${db.url}x` })
  await t.rejects(relay.start(), { name: "ConfigError", message: /does not exist/ })
})

t.test("what is wrong with the options is said when the relay is made", async (t) => {
  const databaseUrl = "postgres://127.0.0.1/election"
  const jwtSecret = SECRET
  const cases: Array<[name: string, options: unknown, message: RegExp]> = [
    ["no database", { databaseUrl: undefined, jwtSecret }, /^DATABASE_URL .*is missing/],
    ["no key", { databaseUrl }, /^JWT_SECRET \(jwtSecret\) is missing/],
    ["a short secret", { databaseUrl, jwtSecret: "short" }, /^JWT_SECRET \(jwtSecret\) .*32 bytes/],
    [
      "a wrong type",
      { databaseUrl, jwtSecret, maxConnections: "many" },
      /^MAX_CONNECTIONS \(maxConnections\) is wrong/,
    ],
    ["an unknown name", { databaseUrl, jwtSecret, jwtSecrets: [] }, /^jwtSecrets is no setting/],
    ["a port", { databaseUrl, jwtSecret, port: 8080 }, /^port is no setting/],
  ]
  for (const [name, options, message] of cases) {
    t.throws(() => createRelay(options as RelayOptions), { name: "ConfigError", message }, name)
  }
  t.throws(() => createRelay({ databaseUrl: "" }), ConfigError)
})
