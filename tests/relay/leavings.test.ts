/** What connections leave behind, counted on the heap: nothing. */

import { IncomingMessage } from "node:http"
import { connect, Socket } from "node:net"
import v8 from "node:v8"
import t from "tap"
import { WebSocket } from "ws"
import { Connection } from "../../relay/fanout/connection.ts"
import { Lane } from "../../relay/fanout/lane.ts"
import { database } from "../helpers/database.ts"
import { startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const CLIENTS = 5_000
const AT_ONCE = 100

const { queryObjects } = v8 as typeof v8 & {
  queryObjects(kind: unknown, options: { format: "count" }): number
}
/** How many there are after a collection. */
const count = (kind: unknown) => queryObjects(kind, { format: "count" })
/** The relay's sessions at the database come and go, and its timers. */
const OTHERS = 10

const MASKED_CLOSE = Buffer.from([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])
/** How a client goes: it says so, hangs up, or cuts. */
const ENDS: Array<(socket: Socket) => void> = [
  (socket) => socket.write(MASKED_CLOSE),
  (socket) => socket.end(),
  (socket) => socket.resetAndDestroy(),
]

/** Comes, is told the first thing, and goes; without a token it goes as soon as it has come. */
function visit(
  relay: TestRelay,
  credentials: string | undefined,
  query: string,
  leave: (socket: Socket) => void,
) {
  const { hostname, port } = new URL(relay.url)
  return new Promise<void>((resolve, reject) => {
    const socket = connect(Number(port), hostname)
    let text = ""
    socket.on("error", reject)
    socket.on("close", () => resolve())
    socket.on("data", (data) => {
      text += data.toString("latin1")
      if (!text.includes(credentials === undefined ? "\r\n\r\n" : "connection_success")) return
      text = ""
      leave(socket)
    })
    socket.write(
      `GET /ws${query} HTTP/1.1\r\nHost: ${hostname}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n${credentials === undefined ? "" : `Authorization: Bearer ${credentials}\r\n`}\r\n`,
    )
  })
}

t.test("after thousands of visits everything is as it was before", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { MAX_UPGRADE_RATE: "0", MAX_UPGRADE_RATE_PER_ADDRESS: "0" })
  const tokens = Array.from({ length: 50 }, (_, n) => token({ sub: `${n}`, committees: [n % 7] }))
  const visits = async (many: number) => {
    for (let n = 0; n < many; n += AT_ONCE) {
      await Promise.all(
        Array.from({ length: AT_ONCE }, (_, i) =>
          visit(
            relay,
            (n + i) % 5 === 0 ? undefined : tokens[(n + i) % tokens.length],
            (n + i) % 2 === 0 ? "" : `?channels=committee:${((n + i) % tokens.length) % 7}`,
            ENDS[(n + i) % ENDS.length] as (socket: Socket) => void,
          ),
        ),
      )
    }
    await until("all are gone", () => relay.relay.status().hub.connections === 0)
  }
  await visits(AT_ONCE)
  const before = {
    sockets: count(Socket),
    requests: count(IncomingMessage),
    resources: process.getActiveResourcesInfo().length,
  }
  await visits(CLIENTS)
  t.match(relay.relay.status().hub, { connections: 0, replaying: 0, users: {}, channels: {}, lanes: 0 })
  await until(
    "the sockets are closed",
    () => process.getActiveResourcesInfo().length < before.resources + OTHERS,
  )
  await until("nothing is left of them", () => count(Connection) === 0)
  t.equal(count(WebSocket), 0)
  t.equal(count(Lane), 0)
  t.ok(count(Socket) < before.sockets + OTHERS)
  t.ok(count(IncomingMessage) < before.requests + OTHERS)
})

t.test("a connection keeps no request", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const before = count(IncomingMessage)
  const staying: Socket[] = []
  const visits = Array.from({ length: 20 }, () => visit(relay, token(), "", (socket) => staying.push(socket)))
  await until("all are there", () => staying.length === visits.length)
  t.equal(count(Connection), visits.length)
  t.equal(count(IncomingMessage), before)
  for (const socket of staying) socket.end()
  await Promise.all(visits)
})
