/** Between two pages of a huge batch: whom the next page waits for, and for how long. */

import t, { type Test } from "tap"
import { Lane, type Member } from "../../relay/fanout/lane.ts"
import { LaneMemory } from "../../relay/fanout/lane-memory.ts"
import { relieve } from "../../relay/fanout/pacing.ts"
import { Multimap } from "../../relay/lib/multimap.ts"
import { createTestClock, settled } from "../helpers/clock.ts"

const SUBSCRIPTION = {
  channels: new Set(["election_updates"]),
  rights: { committees: null, elections: null, channels: null, roles: new Set<string>() },
}
const LIMIT = 100

/** Lanes that hold more than the limit, with the connections of some users, each with how it reads. */
function world(
  ...lanes: ReadonlyArray<ReadonlyArray<readonly [user: string, kind: "done" | "reads" | "paused"]>>
) {
  const clock = createTestClock()
  const presence = new Multimap<Lane>()
  const behind: Member[] = []
  const made = lanes.map((members) => {
    const lane = new Lane(SUBSCRIPTION, presence, new LaneMemory())
    lane.append({ batch: 1, shared: [], own: undefined, bytes: LIMIT + 1 }, 1_000)
    for (const [user, kind] of members) {
      const tookAt = kind === "paused" ? () => Number.NEGATIVE_INFINITY : (now: number) => now
      const member = {
        user,
        position: kind === "done" ? lane.end : 0,
        index: 0,
        pump() {},
        tookAt,
        giveUp() {},
      }
      if (kind === "reads") behind.push(member)
      lane.add(member)
    }
    return lane
  })
  let over = false
  const done = relieve(new Set(made), LIMIT, clock.now(), clock).then(() => {
    over = true
  })
  return {
    clock,
    /** Those who are behind and read, in order. */
    behind,
    lanes: made,
    isOver: async () => {
      await settled()
      return over
    },
    async end(t: Test, ms: number) {
      await clock.pass(ms)
      t.ok(over, `over within ${ms} ms`)
      await done
    },
  }
}

t.test("nobody waits for who reads nothing, whether it has a lane for itself or not", async (t) => {
  for (const lanes of [
    [
      ["1", "done"],
      ["2", "paused"],
    ],
    [
      ["2", "paused"],
      ["2", "paused"],
      ["2", "paused"],
      ["1", "done"],
    ],
    [["2", "paused"]],
  ] as const)
    t.ok(await world(lanes).isOver(), "at once, in the same lane")
  t.ok(
    await world([["1", "done"]], [["2", "paused"]], [["3", "paused"]]).isOver(),
    "at once, in lanes of their own",
  )
})

t.test("nobody waits for who has fallen off its lane", async (t) => {
  const { lanes, isOver, clock } = world([["1", "reads"]])
  t.notOk(await isOver())
  lanes[0]?.append({ batch: 1, shared: [], own: undefined, bytes: LIMIT }, LIMIT)
  await clock.pass(2)
  t.ok(await isOver())
})

t.test("while most are behind and read, the page waits for them, and a second at most", async (t) => {
  const { behind, clock, isOver, end } = world([
    ["1", "reads"],
    ["2", "reads"],
    ["3", "reads"],
    ["4", "done"],
  ])
  await clock.pass(900)
  t.notOk(await isOver())
  for (const member of behind) member.position = 1
  await end(t, 2)
  const never = world([["1", "reads"]])
  await never.clock.pass(900)
  t.notOk(await never.isOver())
  await never.end(t, 110)
})

t.test("once most have read enough the others get as long again, and no more", async (t) => {
  const { behind, clock, isOver, end } = world([
    ["1", "reads"],
    ["2", "reads"],
    ["3", "reads"],
  ])
  await clock.pass(200)
  for (const member of behind.slice(1)) member.position = 1
  await clock.pass(190)
  t.notOk(await isOver())
  await end(t, 20)
})

t.test("a user counts once, with however many connections and lanes", async (t) => {
  const slow = Array.from({ length: 50 }, () => ["2", "reads"] as const)
  for (const lanes of [
    [[["1", "done"] as const, ...slow]],
    [[["1", "done"] as const], ...slow.map((one) => [one])],
  ])
    await world(...lanes).end(t, 60)
  const { clock, isOver, end } = world([
    ["1", "done"],
    ["1", "done"],
    ["1", "reads"],
  ])
  await clock.pass(40)
  t.notOk(await isOver(), "a part of a user is waited for a little")
  await end(t, 20)
})
