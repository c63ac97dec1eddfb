/** The files for nginx and HAProxy, in the real ones, before two relays. Clients from outside come from 127.0.0.2. */

import { once } from "node:events"
import { readFileSync } from "node:fs"
import { get, type IncomingMessage } from "node:http"
import { join } from "node:path"
import t, { type Test } from "tap"
import { WebSocket } from "ws"
import { Settings } from "../../relay/config.ts"
import { AuditLine } from "../../relay/gateway/audit-line.ts"
import { type Client, openClient } from "../helpers/client.ts"
import { workDirectory } from "../helpers/command.ts"
import { type Database, database } from "../helpers/database.ts"
import { openFeed, type TestFeed } from "../helpers/feed.ts"
import { type Front, PROGRAMS, type Program } from "../helpers/front.ts"
import { launchRelay, metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { shipped } from "../helpers/shipped.ts"
import { until } from "../helpers/wait.ts"
import { startWriters } from "../helpers/writers.ts"

const OUTSIDE = "127.0.0.2"

/** The library's socket, as somebody opens it who is not on this machine. */
class FromOutside extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols, { localAddress: OUTSIDE })
  }
}

interface Pair {
  db: Database
  relays: [TestRelay, TestRelay]
  front: Front
}

async function start(t: Test, program: Program, settings: Record<string, string> = {}): Promise<Pair> {
  const db = await database(t)
  const one = () => startRelay(t, db, { TRUST_PROXY: "loopback", ...settings })
  const relays: Pair["relays"] = [await one(), await one()]
  return { db, relays, front: await program.start(t, relays) }
}

/** A client with a token in the header, which has been let in. */
async function enter(t: Test, { port }: Front, options: Parameters<typeof openClient>[2] = {}, query = "") {
  const headers = { authorization: `Bearer ${token()}`, ...options.headers }
  const client = await openClient(t, `ws://127.0.0.1:${port}/ws${query}`, { ...options, headers })
  await client.first("connection_success", ({ type }) => type === "connection_success")
  return client
}

async function statusOf(port: number, path: string, localAddress: string): Promise<number | undefined> {
  const request = get({ port, host: "127.0.0.1", path, localAddress, agent: false })
  const [response] = (await once(request, "response")) as [IncomingMessage]
  response.resume()
  return response.statusCode
}

const connectionsOf = ({ relay }: TestRelay): number => relay.status().hub.connections

for (const program of PROGRAMS) {
  const { name, missing: skip } = program

  t.test(`${name}: changes come through, and the relay sees whom they go to`, { skip }, async (t) => {
    const path = join(await workDirectory(t), "audit.log")
    const { db, front } = await start(t, program, { AUDIT_LOG: path })
    const feed = openFeed(t, { url: `http://127.0.0.1:${front.port}`, WebSocket: FromOutside })
    await feed.reaches("live")
    await db.query("insert into vote (votes) values (1), (2)")
    await feed.count(2)
    const forged = { "x-forwarded-for": "192.0.2.1", forwarded: "for=192.0.2.1", "x-real-ip": "192.0.2.1" }
    await enter(t, front, { localAddress: OUTSIDE, headers: forged })
    const lines = () => readFileSync(path, "utf8").split("\n").slice(0, -1)
    const addresses = () =>
      lines()
        .map((line) => AuditLine.parse(JSON.parse(line)))
        .flatMap((line) => (line.event === "connected" ? [line.address] : []))
    await until("both are in the audit log", () => addresses().length === 2)
    t.strictSame(addresses(), [OUTSIDE, OUTSIDE])
  })

  t.test(`${name}: pages of the name that clients know may connect, and no others`, { skip }, async (t) => {
    const { front } = await start(t, program)
    await enter(t, front, { origin: `http://127.0.0.1:${front.port}` })
    await t.rejects(enter(t, front, { origin: "http://elsewhere.example" }), /403/)
  })

  t.test(
    `${name}: a relay stops under load; its clients are at the other, and miss nothing`,
    { skip },
    async (t) => {
      const { db, relays, front } = await start(t, program, { DRAIN_RATE: "20", DRAIN_TIMEOUT_SECONDS: "20" })
      const url = `http://127.0.0.1:${front.port}`
      const feeds: TestFeed[] = []
      for (let n = 0; n < 20; n++) {
        const feed = openFeed(t, { url, WebSocket: FromOutside })
        await feed.reaches("live")
        feeds.push(feed)
      }
      t.strictSame(relays.map(connectionsOf), [10, 10], "each has as many")
      const writers = await startWriters(t, db, 2)
      await relays[0].stop()
      await until("all are at the other", () => connectionsOf(relays[1]) === 20)
      await writers.stop()
      const logged = await db.query<{ id: string }>(
        "select seq::text as id from relay.change order by change.seq",
      )
      for (const { changes, count, resyncs, errors } of feeds) {
        await count(logged.length)
        t.strictSame(
          changes.map(({ id }) => id).sort(),
          logged.map(({ id }) => id).sort(),
          "each change once",
        )
        t.strictSame([resyncs, errors], [["no_cursor"], []])
      }
    },
  )

  t.test(`${name}: who comes is sent to the relay that has fewer`, { skip }, async (t) => {
    const { relays, front } = await start(t, program)
    const first: Client[] = []
    for (let n = 0; n < 4; n++) {
      const before = connectionsOf(relays[0])
      const client = await enter(t, front)
      if (connectionsOf(relays[0]) > before) first.push(client)
    }
    t.equal(first.length, 2)
    for (const { socket } of first) socket.close()
    await until("it has logged that they left", () => front.log().split(" 101 ").length === 3)
    for (let n = 0; n < 2; n++) await enter(t, front)
    t.strictSame(relays.map(connectionsOf), [2, 2])
  })

  t.test(
    `${name}: whoever comes while a relay stops is let in by the other, whoever is there stays until told`,
    { skip },
    async (t) => {
      const { relays, front } = await start(t, program, { DRAIN_RATE: "0.1", DRAIN_TIMEOUT_SECONDS: "10" })
      const clients = [
        await enter(t, front),
        await enter(t, front),
        await enter(t, front),
        await enter(t, front),
      ]
      t.strictSame(relays.map(connectionsOf), [2, 2])
      const codes: number[] = []
      for (const { closed } of clients) void closed.then(({ code }) => codes.push(code))
      const stopped = relays[0].stop()
      for (let n = 0; n < 8; n++) await enter(t, front)
      t.ok((await metricOf(relays[0], "relay_connects_total", 'result="stopping"')) > 0, "it was asked first")
      t.equal(connectionsOf(relays[1]), 10)
      await stopped
      await until("both are told", () => codes.length === 2)
      t.strictSame(codes, [4000, 4000])
    },
  )

  t.test(`${name}: a relay that never was ready gets nobody`, { skip }, async (t) => {
    const db = await database(t)
    const unready = await launchRelay(t, { url: db.url.replace(`:${db.port}/`, ":1/") })
    const ready = await startRelay(t, db)
    const front = await program.start(t, [unready, ready])
    for (let n = 0; n < 8; n++) await enter(t, front)
    t.equal(connectionsOf(ready), 8)
  })

  t.test(`${name}: no token is logged, whether the relays answer or not`, { skip }, async (t) => {
    const { relays, front } = await start(t, program)
    const secret = token()
    const url = `ws://127.0.0.1:${front.port}/ws?token=${secret}`
    const client = await openClient(t, url, { headers: { referer: `http://page.example/?token=${secret}` } })
    for (const relay of relays) await relay.stop()
    await client.closed
    await t.rejects(openClient(t, url), /50[23]/)
    const lines = () =>
      front
        .log()
        .split("\n")
        .filter((line) => line.includes("GET /ws"))
    await until("both are logged", () => lines().length >= 2)
    t.match(lines(), [/ 101 /, / 50[23] /])
    t.notOk(front.log().includes(secret.slice(0, 20)))
  })

  t.test(`${name}: all but the socket is for this machine alone`, { skip }, async (t) => {
    const { front } = await start(t, program)
    const paths = ["/", "/operations", "/client/client.js", "/metrics", "/health/ready"]
    for (const path of paths) {
      t.equal(await statusOf(front.port, path, "127.0.0.1"), 200, path)
      t.equal(await statusOf(front.port, path, OUTSIDE), 403, path)
    }
    const report = "/api/utils/websocket/health/"
    t.equal(await statusOf(front.port, report, "127.0.0.1"), 401, "the relay's own answer")
    const disguised = [
      "/METRICS",
      "/metrics/",
      "//metrics",
      "/%6detrics",
      "/ws/../metrics",
      "/ws%2f..%2fmetrics",
      "/ws/x",
    ]
    for (const path of [report, ...disguised]) t.equal(await statusOf(front.port, path, OUTSIDE), 403, path)
  })

  t.test(`${name}: a cursor that fills the URL comes through`, { skip }, async (t) => {
    const { front } = await start(t, program)
    const client = await enter(t, front, {}, `?cursor=${"1,".repeat(7_500)}`)
    t.match(client.messages[0], { type: "connection_success", recovered: false })
  })

  t.test(`${name}: a line is cut after three heartbeats, not before`, async (t) => {
    const found = [...shipped(program.file).matchAll(program.patience)].map(([, seconds]) => Number(seconds))
    const { HEARTBEAT_SECONDS } = Settings.parse({})
    t.ok(found.length > 0)
    for (const seconds of found) t.ok(seconds > 3 * HEARTBEAT_SECONDS)
  })
}
