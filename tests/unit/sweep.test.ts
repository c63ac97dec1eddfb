/** The sweep tells lanes how far they are, and never more than what they were sent. */

import t from "tap"
import { type Cursor, parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { Connection } from "../../relay/fanout/connection.ts"
import { Lane } from "../../relay/fanout/lane.ts"
import { LaneMemory } from "../../relay/fanout/lane-memory.ts"
import type { Wire } from "../../relay/fanout/wire.ts"
import { startSweep } from "../../relay/hub/sweep.ts"
import { Multimap } from "../../relay/lib/multimap.ts"
import type { Position } from "../../relay/replay/position.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

const cursor = (xid: number): Cursor => ({
  lineage: "l",
  snapshot: parseSnapshot(`${xid}:${xid}:`) as Snapshot,
})

const BEFORE = cursor(5)
const AFTER = cursor(6)

/** A lane of somebody who takes nothing, which is owed a checkpoint. */
function laneOf(): { lane: Lane; sent: () => string[] } {
  const rights = { committees: null, elections: null, channels: null, roles: new Set<string>() }
  const lane = new Lane({ channels: new Set(), rights }, new Multimap(), new LaneMemory())
  lane.add({ user: "1", position: 0, index: 0, pump() {}, tookAt: (now) => now, giveUp() {} })
  lane.unmarked = true
  const sent = () =>
    Array.from({ length: lane.end }, (_, at) => Buffer.concat(lane.at(at)?.shared ?? []).toString("latin1"))
  return { lane, sent }
}

function start(
  position: Pick<Position, "head" | "inBatch">,
  lanes: () => Iterable<Lane>,
  heartbeatMs = 1_000_000,
) {
  let turns = 0
  const sweep = startSweep({
    settings: { laneBufferBytes: 1_000_000, heartbeatMs, authTimeoutMs: 1_000_000 },
    position,
    connections: {
      [Symbol.iterator]: () => {
        turns++
        return [].values()
      },
    },
    router: { lanes },
    replays: { connections: () => [] },
  })
  return { stop: sweep.stop, turned: (more: number) => until("it turns", () => turns >= more) }
}

t.test("no checkpoint in the middle of a batch, and one after it", async (t) => {
  const { lane, sent } = laneOf()
  const position = { head: BEFORE, inBatch: true }
  const sweep = start(position, () => [lane])
  await sweep.turned(3)
  t.same(sent(), [])
  position.inBatch = false
  await until("it is told", () => sent().length > 0)
  sweep.stop()
  t.match(sent(), [/"checkpoint","cursor":"l:5:5:"/])
  t.notOk(lane.unmarked)
})

t.test(
  "a batch that comes in the middle of a turn ends it: the others are told where the feed is then",
  async (t) => {
    const first = laneOf()
    const second = laneOf()
    const position = { head: BEFORE, inBatch: false }
    const sweep = start(position, function* () {
      yield first.lane
      if (first.lane.end === 1) position.head = AFTER
      yield second.lane
    })
    await until("both are told", () => second.sent().length > 0)
    sweep.stop()
    t.match(first.sent()[0], /"cursor":"l:5:5:"/)
    t.match(second.sent()[0], /"cursor":"l:6:6:"/)
  },
)

t.test("a heartbeat that falls into a batch is followed by its checkpoint", async (t) => {
  const { lane, sent } = laneOf()
  lane.unmarked = false
  const position = { head: BEFORE, inBatch: true }
  const sweep = start(position, () => [lane], 1)
  await until("it beats", () => sent().length > 0)
  t.match(sent()[0], /"type":"ping"/)
  t.notMatch(sent().join(), /checkpoint/)
  position.inBatch = false
  await until("it is told", () => sent().some((frame) => frame.includes("checkpoint")))
  sweep.stop()
})

/** A connection whose socket has taken a byte and takes no more. */
function stuffed(more: Partial<Pick<Connection, "identity">>) {
  const nothing = () => {}
  const wire: Wire = {
    queued: 1,
    full: true,
    sent: 1,
    open: true,
    write: nothing,
    cork: nothing,
    uncork: nothing,
    close: nothing,
    terminate: nothing,
  }
  const codes: number[] = []
  const connection = new Connection({ wire, address: "127.0.0.1", onClosing: (_, code) => codes.push(code) })
  return { connection: Object.assign(connection, more), codes }
}

t.test("a relay that did not run for a while blames nobody for what could not reach it", async (t) => {
  const rights = { committees: null, elections: null, channels: null, roles: new Set<string>() }
  const identity = { user: "1", admin: false, rights, expiresAt: Number.POSITIVE_INFINITY }
  const all = { unknown: stuffed({}), slow: stuffed({ identity }), silent: stuffed({ identity }) }
  let turns = 0
  const sweep = startSweep({
    settings: { laneBufferBytes: 1, heartbeatMs: 1, authTimeoutMs: 5_000, slowMs: 5_000 },
    position: { head: undefined, inBatch: false },
    connections: {
      *[Symbol.iterator]() {
        for (const { connection } of Object.values(all)) yield connection
        turns++
      },
    },
    router: { lanes: () => [] },
    replays: { connections: () => [] },
  })
  const turned = async () => {
    const before = turns
    await until("it turns", () => turns > before)
  }
  await turned()
  all.silent.connection.lastHeardAt -= 6_000
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6_000)
  await turned()
  sweep.stop()
  for (const [who, { codes }] of Object.entries(all)) t.same(codes, [], who)
})
