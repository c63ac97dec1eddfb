/** Whose turn it is to have the log read: no user's many positions hold up another's. */

import t from "tap"
import type { PendingRead, Reader } from "../../relay/replay/read-group.ts"
import { ReadQueue } from "../../relay/replay/read-queue.ts"
import { snapshotAt } from "../helpers/hub.ts"

/** A reader of a user, so many transactions behind 10,000. */
function waiting(
  user: string,
  behind: number,
  more: Partial<Reader> & { distance?: number } = {},
): PendingRead {
  const { distance = Math.floor(Math.log2(behind)), ...reader } = more
  return {
    distance,
    settle() {},
    reader: {
      user,
      since: snapshotAt(10_000 - behind),
      rest: undefined,
      take() {},
      ready: () => true,
      whenReady: async () => {},
      gone: () => false,
      ...reader,
    },
  }
}

/** The users and the position of the next group, whose read takes so long. */
function turn(queue: ReadQueue, ms = 100): string {
  const group = queue.take()
  if (group === undefined) return "nobody"
  queue.release(group, ms)
  return `${[...group.users].join()} ${10_000n - group.since.xmax}`
}

const turns = (queue: ReadQueue, count: number): string[] => Array.from({ length: count }, () => turn(queue))

t.test(
  "a user's positions are read for one after another, the nearest first, and others in between",
  async (t) => {
    const queue = new ReadQueue()
    for (const behind of [4096, 1024, 2, 16]) queue.add(waiting("many", behind))
    t.equal(turn(queue), "many 2")
    queue.add(waiting("one", 8000), waiting("another", 9000))
    t.same(turns(queue, 5), ["one 8000", "another 9000", "many 16", "many 1024", "many 4096"])
  },
)

t.test("nothing of a user is read while another read of the user is under way", async (t) => {
  const queue = new ReadQueue()
  queue.add(waiting("7", 2), waiting("7", 64))
  const first = queue.take()
  t.equal(queue.take(), undefined)
  queue.add(waiting("8", 4_000))
  t.same([...(queue.take()?.users ?? [])], ["8"])
  t.ok(first)
  if (first !== undefined) queue.release(first, 1)
  t.equal(turn(queue), "7 64")
})

t.test("who has had much waits until the others have had as much, and nobody saves up", async (t) => {
  const queue = new ReadQueue()
  const add = (user: string, ...all: number[]) => queue.add(...all.map((behind) => waiting(user, behind)))
  add("a", 2, 4, 8, 16)
  t.equal(turn(queue, 1_000), "a 2")
  add("b", 1_000, 2_000, 4_000)
  t.equal(turn(queue, 300), "b 1000")
  t.equal(turn(queue, 300), "b 2000")
  add("c", 500, 250)
  t.equal(turn(queue, 200), "c 250", "who comes late is not behind")
  t.equal(turn(queue, 1_000), "a 4", "which has waited for so long")
  t.equal(turn(queue, 500), "c 500", "of two who have had as much it is nearer")
  t.same(turns(queue, 3), ["b 4000", "a 8", "a 16"])
})

t.test("who has had a turn has another, however many come who have had none", async (t) => {
  const queue = new ReadQueue()
  queue.add(waiting("a", 4), waiting("a", 4_096))
  t.equal(turn(queue), "a 4")
  let others = 0
  do queue.add(waiting(`new ${++others}`, 2))
  while (turn(queue) !== "a 4096" && others < 100)
  t.ok(others < 10, `${others} went before`)
  queue.add(waiting("far", 4_096))
  let nearer = 0
  do queue.add(waiting(`nearer ${++nearer}`, 2))
  while (turn(queue) !== "far 4096" && nearer < 100)
  t.ok(nearer < 10, `${nearer} went before`)
})

t.test(
  "those of other users who are about as far back share a read; nobody's other positions do",
  async (t) => {
    const queue = new ReadQueue()
    queue.add(waiting("a", 2), waiting("a", 40), waiting("b", 3), waiting("b", 2), waiting("c", 40))
    t.equal(turn(queue), "a,b 3", "from where the one begins that is further back")
    t.equal(turn(queue), "c,a 40")
    t.equal(turn(queue), "nobody")
  },
)

t.test(
  "those who were cut at the same place share what is left, before they begin with anything as far back",
  async (t) => {
    const queue = new ReadQueue()
    const rest = (after: string) => ({ rest: { until: snapshotAt(9_999), after } })
    queue.add(
      waiting("a", 100),
      waiting("a", 100, rest("5")),
      waiting("b", 100, rest("5")),
      waiting("c", 100, rest("6")),
    )
    const group = queue.take()
    t.same([...(group?.users ?? [])], ["a", "b"])
    t.equal(group?.rest?.after, "5")
    t.notOk(group && queue.othersThan(group) === false, "c waits")
  },
)

t.test("positions that name thousands of transactions in flight are not read for together", async (t) => {
  const queue = new ReadQueue()
  const first = 1_000
  for (let n = 0; n < 20; n++) {
    const inFlight = Array.from({ length: 1_000 }, (_, i) => first + n + 2 * i)
    const since = snapshotAt(`${inFlight[0]}:10000:${inFlight.join(",")}`)
    queue.add(waiting(String(n), 1, { since, distance: 9 }))
  }
  let groups = 0
  for (; turn(queue) !== "nobody"; groups++);
  t.equal(groups, 3, "eight at a time")
})

t.test("a group is halved between its positions, however many readers each has", async (t) => {
  const queue = new ReadQueue()
  for (const [user, behind] of [
    ["a", 33],
    ["b", 34],
    ["c", 33],
    ["d", 33],
    ["e", 40],
    ["f", 50],
  ] as const)
    queue.add(waiting(user, behind))
  const users = (reads: readonly PendingRead[] = []) => reads.map(({ reader }) => reader.user).join("")
  const halves = queue.take()?.split()
  t.equal(users(halves?.recent), "abcd")
  t.equal(users(halves?.older), "ef")
  const alone = new ReadQueue()
  alone.add(waiting("a", 33), waiting("b", 33))
  t.equal(users(alone.take()?.split().recent), "", "one position is nobody's half")
})

t.test("who leaves while it waits is not read for, and its place is free", async (t) => {
  const queue = new ReadQueue()
  const left: string[] = []
  const gone = new Set<number>()
  for (const behind of [10, 20, 30, 30]) {
    const read = waiting("a", behind, { gone: () => gone.has(behind) })
    queue.add({ ...read, settle: ({ kind }) => left.push(`${behind} ${kind}`) })
  }
  const room = () => [1, 2, 3].filter((most) => !queue.hasRoom(waiting("a", 40).reader, most))
  t.same(room(), [1, 2, 3])
  for (const behind of [10, 20]) gone.add(behind)
  queue.dropGone()
  t.same(left, ["10 failed", "20 failed"])
  t.same(room(), [1])
  t.same(turns(queue, 2), ["a 30", "nobody"])
  t.same(room(), [])
})

t.test("of one user, too, nobody waits for ever behind those who are less far back", async (t) => {
  const queue = new ReadQueue()
  queue.add(waiting("all", 4_096))
  let nearer = 0
  do queue.add(waiting("all", 2 + nearer++))
  while (turn(queue) !== "all 4096" && nearer < 100)
  t.ok(nearer < 20, `${nearer} went before`)
})

t.test("whoever is where another of the same user waits already needs no room", async (t) => {
  const queue = new ReadQueue()
  queue.add(waiting("a", 10), waiting("a", 20))
  t.ok(queue.hasRoom(waiting("a", 20).reader, 2))
  t.notOk(queue.hasRoom(waiting("a", 30).reader, 2))
  t.ok(queue.hasRoom(waiting("b", 30).reader, 2))
})

t.test("to count the positions of one of thousands of users nobody else is looked at", async (t) => {
  const queue = new ReadQueue()
  let looked = 0
  const count = 1_000
  for (let n = 0; n < count; n++) {
    const { reader, ...read } = waiting(String(n), 2)
    queue.add({
      ...read,
      get reader() {
        looked++
        return reader
      },
    })
  }
  const { reader } = waiting("0", 3)
  for (let n = 0; n < count; n++) queue.hasRoom({ ...reader, user: String(n) }, 1)
  t.ok(looked <= 2 * count, `${looked} looks`)
})
