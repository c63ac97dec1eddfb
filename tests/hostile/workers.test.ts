/** The worst of the others on processes as they are run: those who share a port are watched over as one alone is. */

import t, { type Test } from "tap"
import { z } from "zod"
import { openClient } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { frame, Opcode, say } from "../helpers/frame.ts"
import { processOn } from "../helpers/process.ts"
import { authenticated, GET, openRaw, statusLine, upgrade, whenEnded, wordsUntil } from "../helpers/raw.ts"
import { NO_LIMITS, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const Report = z.object({
  connections: z.object({ total: z.number() }),
  workers: z.array(z.object({ pid: z.number() })),
})
type Attack = (t: Test, url: string) => Promise<void>

const PAGE = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
const says =
  (bytes: string | Buffer): Attack =>
  async (t, url) => {
    const client = await openRaw(t, url)
    client.send(bytes)
    await whenEnded(client)
  }
const late =
  (bytes: string): Attack =>
  async (t, url) => {
    const client = await openRaw(t, url)
    client.send(bytes)
    t.match(await statusLine(client), "HTTP/1.1 408 ")
  }
const breaks =
  (bytes: Buffer, last: string): Attack =>
  async (t, url) => {
    const client = await openRaw(t, url)
    client.send(Buffer.concat([Buffer.from(authenticated()), bytes]))
    t.equal((await wordsUntil(client, "")).at(-1), last)
  }

const ATTACKS: [what: string, attack: Attack][] = [
  ["an upgrade behind an answer that takes a while", says(PAGE + upgrade())],
  ["another upgrade behind an answer", says(PAGE + upgrade(GET, { Upgrade: "h2c" }))],
  ["an upgrade with a body", says(upgrade(GET, { "Content-Length": "5" }))],
  ["no HTTP", says("\0\0\0\r\n\r\n")],
  ["a request that does not come", late("")],
  ["a request that does not end", late("GET /ws HTTP/1.1\r\nHost:")],
  ["a frame that is none", breaks(frame("", { opcode: 3 }), "close 1002")],
  ["a frame beyond the limit", breaks(frame("", { declared: 2n ** 40n }), "close 1009")],
  ["text that is none", breaks(frame(Buffer.from([0xff])), "close 1007")],
  ["binary", breaks(frame("", { opcode: Opcode.binary }), "close 4501")],
  ["a bad token", says(Buffer.concat([Buffer.from(upgrade()), say({ type: "authenticate", token: "x" })]))],
]

t.test("two workers take the worst at once, and neither of them ends", async (t) => {
  const db = await database(t)
  const relay = await processOn(t, db.url, { ...NO_LIMITS, WORKERS: "2", AUTH_TIMEOUT_SECONDS: "1" })
  const run = await relay.start()
  const headers = { authorization: `Bearer ${token({ role: "admin" })}` }
  const report = async () => {
    const answer = await fetch(`${relay.url}/api/utils/websocket/health/`, { headers })
    return Report.parse(await answer.json())
  }
  const witness = await openClient(t, `${relay.url.replace("http", "ws")}/ws`, { headers })
  await witness.first("connection_success", ({ type }) => type === "connection_success")
  const pids = (await report()).workers.map(({ pid }) => pid).sort()
  for (let round = 1; round <= 4; round++) {
    await Promise.all([
      ...ATTACKS.map(([, attack]) => attack(t, relay.url)),
      db.query("insert into vote (votes) values ($1)", [round]),
    ])
    await witness.count(round)
  }
  t.strictSame(
    witness.changes().map(({ data }) => data?.votes),
    [1, 2, 3, 4],
  )
  await until("nobody else is connected", async () => (await report()).connections.total === 1)
  t.strictSame((await report()).workers.map(({ pid }) => pid).sort(), pids, "the same processes")
  t.equal((await fetch(`${relay.url}/health/ready`)).status, 200)
  t.notMatch(run.err(), /"level":(40|50|60)/)
})
