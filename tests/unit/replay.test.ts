/** A replay from memory, step by step: it leaves the event loop to others whatever there is to send. */

import t from "tap"
import type { Change } from "../../relay/change/change.ts"
import { type Cursor, cursorText, parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { readSettings } from "../../relay/config.ts"
import { Connection } from "../../relay/fanout/connection.ts"
import { createReplays, type Joined } from "../../relay/replay/replay.ts"
import { createReplayBuffer } from "../../relay/replay/replay-buffer.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"

const PARTS = 20_000
const cursor = (xmax: number): Cursor => ({
  lineage: "l",
  snapshot: parseSnapshot(`${xmax}:${xmax}:`) as Snapshot,
})

const message = (xid: number): Change => ({
  kind: "message",
  op: "message",
  id: String(xid),
  xid: String(xid),
  at: "",
  channel: "committee:1",
  payload: "1",
})

/** An authenticated connection whose client takes everything at once. */
function connect(): { connection: Connection; sent: string[] } {
  const sent: string[] = []
  const connection = new Connection({
    address: "127.0.0.1",
    onClosing: (_, code) => sent.push(`closed with ${code}`),
    wire: {
      queued: 0,
      full: false,
      sent: 0,
      open: true,
      write: (frames) => sent.push(frames.toString("latin1")),
      cork() {},
      uncork() {},
      close() {},
      terminate() {},
    },
  })
  const rights = { committees: null, elections: null, channels: null, roles: new Set<string>() }
  connection.identity = { user: "7", admin: false, rights, expiresAt: Number.POSITIVE_INFINITY }
  return { connection, sent }
}

t.test("others have their turn while it passes batches that the client sees nothing of", async (t) => {
  const recent = createReplayBuffer(Number.POSITIVE_INFINITY)
  recent.begin(cursor(10).snapshot)
  for (let i = 0; i < PARTS; i++)
    recent.append({ changes: [message(10 + i)], cursor: cursor(11 + i), first: true, final: true })
  const head = cursor(10 + PARTS)
  const { connection, sent } = connect()
  let turns = 0
  let live = false
  const joined: Joined[] = []
  const replays = createReplays({
    recent,
    history: {
      read: async () => t.fail("all is in memory") as never,
      stop() {},
    },
    log: createLog(readSettings({ JWT_SECRET: "a secret of the tests, which is long enough" }), {
      write() {},
    }),
    metrics: createMetrics(),
    position: () => ({ head, lineages: new Set(["l"]), inBatch: false }),
    refresh: async () => true,
    goLive: () => {
      live = true
    },
  })
  replays.start(connection, new Set(["committee:2"]), cursorText(cursor(10)), (told) => joined.push(told))
  while (!live) {
    await new Promise(setImmediate)
    turns++
  }
  t.match(joined, [{ recovered: true, cursor: cursorText(cursor(10)) }])
  t.match(sent.at(-1), `{"type":"checkpoint","cursor":"${cursorText(head)}","replayed":0}`)
  t.ok(turns > 5, `${turns} turns of the event loop`)
})
