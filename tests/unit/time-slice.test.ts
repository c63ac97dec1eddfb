/** However much there is to do, the event loop turns: what never ends must not hold up anybody either. */

import t, { type Test } from "tap"
import type { Change } from "../../relay/change/change.ts"
import { Connection } from "../../relay/fanout/connection.ts"
import { announce, flush } from "../../relay/fanout/flush.ts"
import { Lane } from "../../relay/fanout/lane.ts"
import { LaneMemory } from "../../relay/fanout/lane-memory.ts"
import { PartFrames } from "../../relay/fanout/part-frames.ts"
import { createRouter } from "../../relay/fanout/router.ts"
import { startSweep } from "../../relay/hub/sweep.ts"
import { Multimap } from "../../relay/lib/multimap.ts"
import { createSliceQueue, TimeSlice } from "../../relay/lib/time-slice.ts"
import { readChange } from "../helpers/change.ts"
import { until } from "../helpers/wait.ts"

const SUBSCRIPTION = {
  channels: new Set(["election_updates"]),
  rights: { committees: null, elections: null, channels: null, roles: new Set<string>() },
}
const laneOf = () => new Lane(SUBSCRIPTION, new Multimap(), new LaneMemory())

/** The same again and again, until it is over. */
function endless<T>(value: T): { values: Iterable<T>; taken(): number; end(): void } {
  let taken = 0
  let over = false
  function* values() {
    for (; !over; taken++) yield value
  }
  return {
    values: { [Symbol.iterator]: values },
    taken: () => taken,
    end: () => {
      over = true
    },
  }
}

const turnOfTheLoop = () => new Promise(setImmediate)

async function someTurns(t: Test, taken: () => number): Promise<void> {
  for (let turn = 0; turn < 5; turn++) {
    const before = taken()
    await turnOfTheLoop()
    await turnOfTheLoop()
    t.ok(taken() > before, "it goes on")
  }
}

for (const [name, work] of [
  ["a flush", (lanes: Iterable<Lane>) => flush(lanes)],
  ["an announcement", (lanes: Iterable<Lane>) => announce(lanes, [Buffer.from("x")], 10)],
] as const) {
  t.test(`${name} of lanes without end`, async (t) => {
    const lane = laneOf()
    lane.add({ user: "1", position: 0, index: 0, pump() {}, tookAt: (now) => now, giveUp() {} })
    const lanes = endless(lane)
    const done = work(lanes.values)
    await someTurns(t, lanes.taken)
    lanes.end()
    await done
  })
}

t.test("a flush pumps each member once, wherever it starts", async (t) => {
  const lane = laneOf()
  const pumped: number[] = []
  for (let n = 0; n < 3; n++)
    lane.add({
      user: "1",
      position: 0,
      index: 0,
      pump: () => pumped.push(n),
      tookAt: (now) => now,
      giveUp() {},
    })
  for (let round = 0; round < 3; round++) await flush([lane])
  t.same(pumped, [0, 1, 2, 1, 2, 0, 2, 0, 1])
})

t.test("the sweep over connections without end", async (t) => {
  const sent: string[] = []
  const connection = new Connection({
    address: "127.0.0.1",
    onClosing() {},
    wire: {
      queued: 0,
      full: false,
      sent: 0,
      open: true,
      write: (frames) => sent.push(frames.toString()),
      cork() {},
      uncork() {},
      close() {},
      terminate() {},
    },
  })
  const connections = endless(connection)
  const sweep = startSweep({
    settings: { laneBufferBytes: 1_000, heartbeatMs: 1_000_000, authTimeoutMs: 1_000_000 },
    position: { head: undefined, inBatch: false },
    connections: connections.values,
    router: createRouter(),
    replays: undefined as never,
  })
  await until("it turns", () => connections.taken() > 0)
  await someTurns(t, connections.taken)
  connections.end()
  sweep.stop()
})

const CHANGES = Array.from(
  { length: 20_000 },
  (_, n): Change =>
    readChange({
      seq: String(n),
      xid: "5",
      at: "2026-11-03 20:15:00+00",
      table: "public.vote",
      op: "insert",
      type: "voting_update",
      old: null,
      new: JSON.stringify({ id: n, user_id: n % 10, note: "x".repeat(200) }),
      meta: JSON.stringify({ key: ["id"], scope: { user: "user_id" } }),
    }),
)

/** How often the event loop turned meanwhile. */
async function turnsDuring(work: Promise<unknown>): Promise<number> {
  let turns = 0
  let over = false
  void work.finally(() => {
    over = true
  })
  while (!over) {
    await turnOfTheLoop()
    turns++
  }
  return turns
}

t.test("twenty thousand changes are routed and made to frames in slices, whole and in order", async (t) => {
  const router = createRouter()
  const lane = router.laneFor(SUBSCRIPTION)
  lane.add({ user: "3", position: 0, index: 0, pump() {}, tookAt: (now) => now, giveUp() {} })
  const nowhere = router.laneFor({ ...SUBSCRIPTION, channels: new Set() })
  nowhere.add({ user: "3", position: 0, index: 0, pump() {}, tookAt: (now) => now, giveUp() {} })
  t.ok((await turnsDuring(router.route(CHANGES, new TimeSlice()))) > 3, "routed")
  t.equal(lane.visibleChanges.length, CHANGES.length)
  t.same([...nowhere.ownUsers], ["3"])
  const piece = { batch: 1, changes: CHANGES }
  const mark = [Buffer.from("mark")]
  const made = lane.takeEntry(piece, mark, new PartFrames(true, new TimeSlice()))
  t.ok((await turnsDuring(made)) > 3, "made to frames")
  const ids = (chunks: readonly Buffer[]) =>
    [
      ...Buffer.concat(chunks)
        .toString("latin1")
        .matchAll(/"action":"create","id":"(\d+)"/g),
    ].map(([, id]) => Number(id))
  const { shared, own, bytes } = await made
  t.same(
    ids(shared),
    CHANGES.map(({ id }) => Number(id)),
  )
  t.equal(bytes, Buffer.concat(shared).length)
  t.equal(own, undefined)
  t.equal(
    Buffer.concat(shared)
      .toString("latin1")
      .match(/"last":true/g)?.length,
    1,
  )
  t.match(Buffer.concat(shared).toString("latin1"), /"last":true\}\}mark$/)
  const his = await nowhere.takeEntry(piece, [], new PartFrames(true, new TimeSlice()))
  t.same(
    ids(his.own?.get("3") ?? []),
    CHANGES.filter((_, n) => n % 10 === 3).map(({ id }) => Number(id)),
  )
  t.equal(his.bytes, Buffer.concat(his.own?.get("3") ?? []).length)
})

t.test("who waits for its turn gets it in order, a few at a time", async (t) => {
  const turns = createSliceQueue()
  const went: number[] = []
  const all = Array.from({ length: 20 }, async (_, n) => {
    await turns.next("7")
    const end = performance.now() + 1
    while (performance.now() < end);
    went.push(n)
  })
  t.ok((await turnsDuring(Promise.all(all))) > 3)
  t.same(
    went,
    all.map((_, n) => n),
  )
})

t.test("whoever has many tasks waits between them for those of others", async (t) => {
  const turns = createSliceQueue()
  const went: string[] = []
  const task = async (owner: string) => {
    await turns.next(owner)
    went.push(owner)
  }
  const all = [..."aaaaaa", "b", "b", "c"].map(task)
  await Promise.all(all)
  t.same(went.join(""), "aabcabaaa")
  await task("a")
  t.equal(went.length, 10, "and when all is done, the next begins")
})

t.test("one change that concerns thousands of lanes and users is routed in slices", async (t) => {
  const router = createRouter()
  for (let n = 0; n < 20_000; n++)
    router
      .laneFor({ ...SUBSCRIPTION, channels: new Set(["election_updates", `committee:${n}`]) })
      .add({ user: "3", position: 0, index: 0, pump() {}, tookAt: (now) => now, giveUp() {} })
  const [change] = CHANGES.slice(3)
  t.ok((await turnsDuring(router.route(change === undefined ? [] : [change], new TimeSlice()))) > 3)
  for (const lane of router.lanes()) if (lane.visibleChanges.length !== 1) t.fail("a lane without the change")
})
