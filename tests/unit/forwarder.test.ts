/** One feed for several workers: who comes when, who is waited for, and what each is told. */

import t, { type Test } from "tap"
import { createRevocations } from "../../relay/access/revocations.ts"
import { type Change, LogRow } from "../../relay/change/change.ts"
import { parseCursor } from "../../relay/change/cursor.ts"
import { FeedMessage } from "../../relay/workers/feed-message.ts"
import { createForwarder, type Forwarder } from "../../relay/workers/forwarder.ts"
import { readChange } from "../helpers/change.ts"

const cursor = (xmax: number) => {
  const parsed = parseCursor(`abc:${xmax}:${xmax}:`)
  if (parsed === undefined) throw new Error("not a cursor")
  return parsed
}

const change = (seq: number): Change =>
  readChange({
    seq: String(seq),
    xid: "9",
    at: "2026-11-03 20:00:00+00",
    table: "public.vote",
    op: "insert",
    type: "voting_update",
    old: null,
    new: `{"id":${seq}}`,
    meta: "{}",
  })

/** A worker that notes what it is told, and takes a part when it is made to. */
function join(forwarder: Forwarder) {
  const told: string[] = []
  const share = forwarder.add({
    write(line) {
      const { message } = JSON.parse(line.toString()) as { message: unknown }
      const parsed = FeedMessage.parse(message)
      if (parsed.kind === "part")
        told.push(`${parsed.rows.map((row) => LogRow.parse(row).seq).join()}${parsed.final ? "." : ""}`)
      else if (parsed.kind === "position")
        told.push(
          [`begin ${parsed.cursor.snapshot.xmax}`, ...parsed.revocations.map(({ value }) => value)].join(" "),
        )
      else told.push(parsed.kind)
    },
  })
  return {
    told,
    taken: () => share.taken(),
    stuckFor: () => share.stuckFor(),
    excuse: (ms: number) => share.excuse(ms),
    end: () => share.end(),
  }
}

function start() {
  const forwarder = createForwarder(createRevocations())
  const { consumer } = forwarder
  consumer.adopt("abc", new Set(["abc"]))
  consumer.begin(cursor(5), [])
  const deliver = (seqs: number[], xmax: number, first = true, final = true) =>
    consumer.deliver({ changes: seqs.map(change), revocations: [], cursor: cursor(xmax), first, final })
  return { forwarder, consumer, deliver }
}

/** Whether it resolves without anything else happening. */
async function settles(promise: Promise<unknown>): Promise<boolean> {
  let settled = false
  void promise.then(() => {
    settled = true
  })
  for (let n = 0; n < 20; n++) await Promise.resolve()
  return settled
}

t.test("a worker begins where the feed is, and gets what comes then", async (t) => {
  const { forwarder, deliver } = start()
  await deliver([1], 10)
  const worker = join(forwarder)
  t.same(worker.told, ["adopt", "begin 10"])
  void deliver([2, 3], 20)
  t.same(worker.told.slice(2), ["2,3."])
})

t.test("one that comes is told the numbers that stand, and nothing of those that are gone", async (t) => {
  const { forwarder, consumer } = start()
  const figure = { type: "totals", action: null, channel: "dashboard", data: "1", at: "2026-11-03T20:00:00Z" }
  const before = join(forwarder)
  consumer.showDerived({ name: "a", values: [figure] })
  consumer.showDerived({ name: "b", values: [figure] })
  consumer.showDerived({ name: "a", values: [] })
  t.same(before.told, ["adopt", "begin 5", "derived", "derived", "derived"])
  t.same(join(forwarder).told, ["adopt", "begin 5", "derived"])
})

t.test("one that comes in the middle of a batch begins after it", async (t) => {
  const { forwarder, deliver } = start()
  await deliver([1], 10, true, false)
  const worker = join(forwarder)
  t.same(worker.told, [])
  await deliver([2], 10, false, true)
  t.same(worker.told, ["adopt", "begin 10"])
})

t.test("one that comes in the middle of a batch that is lost begins before it", async (t) => {
  const { forwarder, consumer, deliver } = start()
  await deliver([1], 10, true, false)
  const worker = join(forwarder)
  consumer.lost()
  t.same(worker.told, ["adopt", "begin 5"])
  void deliver([1, 2], 10)
  t.same(worker.told.slice(2), ["1,2."])
})

t.test("before the feed has a position, and after it has lost it, nobody is told one", async (t) => {
  const forwarder = createForwarder(createRevocations())
  const first = join(forwarder)
  t.same(first.told, [])
  forwarder.consumer.adopt("abc", new Set(["abc"]))
  t.same(first.told, ["adopt"])
  forwarder.consumer.begin(cursor(5), [])
  forwarder.consumer.reset()
  t.same(first.told, ["adopt", "begin 5", "reset"])
  t.same(join(forwarder).told, ["adopt"])
})

t.test("the feed waits for the slowest worker, one part behind, and not for one that is gone", async (t) => {
  const { forwarder, deliver } = start()
  const [fast, slow] = [join(forwarder), join(forwarder)] as const
  t.ok(await settles(deliver([1], 10)), "one part ahead")
  fast.taken()
  const second = deliver([2], 20)
  t.notOk(await settles(second))
  fast.taken()
  t.notOk(await settles(second))
  t.ok(slow.stuckFor() > 0)
  t.equal(fast.stuckFor(), 0)
  slow.excuse(60_000)
  t.ok(slow.stuckFor() < 0, "what was slept through is no time that it was stuck")
  slow.taken()
  t.ok(await settles(second))
  const third = deliver([3], 30)
  fast.taken()
  t.notOk(await settles(third))
  slow.end()
  t.ok(await settles(third))
  void deliver([4], 40)
  t.same(slow.told.slice(2), ["1.", "2.", "3."])
  t.same(fast.told.slice(2), ["1.", "2.", "3.", "4."])
})

t.test("a new lineage is told before what is of it", async (t: Test) => {
  const { forwarder, consumer } = start()
  const worker = join(forwarder)
  consumer.adopt("def", new Set(["def"]))
  t.same(worker.told, ["adopt", "begin 5", "adopt"])
})

t.test(
  "a worker begins with the revocations that are in force then, and is told those that come",
  async (t) => {
    const { forwarder, consumer } = start()
    const revocation = (value: string, until: number | null = null) => ({
      kind: "user" as const,
      value,
      until,
      issued_before: null,
    })
    consumer.begin(cursor(5), [revocation("a"), revocation("b"), revocation("c", 1)])
    await consumer.deliver({
      changes: [],
      revocations: [revocation("d"), revocation("a", 0)],
      cursor: cursor(6),
      first: true,
      final: true,
    })
    t.same(join(forwarder).told, ["adopt", "begin 6 b d"])
  },
)
