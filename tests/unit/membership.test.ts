/** Joining and changing subscriptions at moments that a real server rarely shows. */

import t from "tap"
import { cursorText } from "../../relay/change/cursor.ts"
import type { Filter } from "../../relay/protocol/filter.ts"
import type { Joined } from "../../relay/replay/returning.ts"
import { buildHub, cursorAt, identity, message } from "../helpers/hub.ts"

const CHANNELS = new Set(["committee:1"])
const textAt = (xmax: number): string => cursorText(cursorAt(xmax))
const same = (channels: ReadonlySet<string>) => channels
const also = (channel: string) => (channels: ReadonlySet<string>) => new Set([...channels, channel])

/** A connection in the middle of a batch. */
async function inBatch() {
  const hub = buildHub()
  const client = hub.connect()
  hub.membership.join(client.connection, CHANNELS, undefined, () => {})
  await hub.deliver(12, { changes: [message(10)], final: false })
  return { ...hub, ...client }
}

t.test("a subscription that waits for the end of the batch takes effect there", async (t) => {
  const { membership, deliver, connection, wire } = await inBatch()
  const answers: Joined[] = []
  t.ok(membership.rejoin(connection, also("committee:2"), undefined, (joined) => answers.push(joined)))
  await deliver(12, { changes: [message(11, "committee:2")], first: false })
  t.match(answers, [{ cursor: textAt(12) }])
  await deliver(13, { changes: [message(12, "committee:2")] })
  t.same(wire.read(), [10, textAt(12), 12, textAt(13)], "it has seen the batch as it began it")
})

t.test("a connection that closes meanwhile has no answer and no lane", async (t) => {
  const { membership, deliver, connection, wire, router } = await inBatch()
  const waits = membership.rejoin(
    connection,
    () => t.fail("nobody is there") as never,
    undefined,
    () => t.fail("nobody is there"),
  )
  t.ok(waits)
  connection.close(4000, "time to connect anew")
  await deliver(12, { changes: [message(11)], first: false })
  await deliver(13, { changes: [message(12)] })
  t.equal(router.size(), 0)
  t.same(wire.read(), [10])
})

t.test("too many messages that wait are refused, and none of the others is lost", async (t) => {
  const { membership, deliver, connection } = await inBatch()
  const answered: number[] = []
  const ask = (n: number) =>
    membership.rejoin(connection, also(`committee:${n}`), undefined, () => answered.push(n))
  const taken = Array.from({ length: 40 }, (_, n) => n).filter(ask)
  t.same(
    taken,
    Array.from({ length: 32 }, (_, n) => n),
    "32 wait",
  )
  t.same(answered, [])
  await deliver(12, { first: false })
  t.same(answered, taken, "in the order in which they came")
  await deliver(13, { final: false })
  t.ok(ask(40), "there is room again")
  await deliver(13, { first: false })
  t.same(answered, [...taken, 40])
})

t.test("what waits behind the beginning of a replay waits for its end, too", async (t) => {
  const { membership, replays, deliver, connection, wire } = await inBatch()
  const order: string[] = []
  membership.rejoin(connection, same, textAt(10), () => order.push("returned"))
  membership.rejoin(connection, also("committee:2"), undefined, () => order.push("subscribed"))
  await deliver(12, { first: false })
  t.equal(replays.size(), 1)
  t.same(order, [])
  while (connection.lane === undefined) await new Promise(setImmediate)
  t.same(order, ["returned", "subscribed"])
  t.same([...connection.lane.subscription.channels], ["committee:1", "committee:2"])
  t.same(wire.read(), [10, textAt(12), 10, textAt(12)])
})

t.test("a subscription that waits for a replay takes effect when it is over", async (t) => {
  const { membership, replays, deliver, connect } = buildHub()
  await deliver(11, { changes: [message(10)] })
  const { connection, wire } = connect()
  membership.join(connection, CHANNELS, textAt(10), () => {})
  const order: string[] = []
  t.ok(membership.rejoin(connection, also("committee:2"), undefined, () => order.push("subscribed")))
  while (replays.size() > 0) await new Promise(setImmediate)
  t.same(order, ["subscribed"])
  t.same([...(connection.lane?.subscription.channels ?? [])], ["committee:1", "committee:2"])
  t.same(wire.read(), [10, textAt(11)])
})

t.test("a client that has fallen off its lane is closed instead of taking another", async (t) => {
  const { membership, connect, deliver } = buildHub()
  const { connection, wire, codes } = connect()
  membership.join(connection, CHANNELS, undefined, () => {})
  wire.full = true
  for (const xid of [10, 11])
    await deliver(xid + 1, { changes: [message(xid, "committee:1", "x".repeat(600_000))] })
  t.ok(connection.overrun)
  membership.rejoin(connection, same, undefined, () => t.fail("it has missed something"))
  t.same(codes, [4008])
})

t.test("without a position nobody joins", (t) => {
  const { hub, membership, connect } = buildHub()
  hub.reset()
  const { connection, codes } = connect()
  membership.join(connection, CHANNELS, undefined, () => t.fail("there is no cursor to give"))
  t.same(codes, [4011])
  t.end()
})

t.test("one filter too many is crowded, and another client of the same is not", (t) => {
  const { membership, connect, live } = buildHub({ maxLanes: 1 })
  const filter: Filter = { key: "a", types: null, actions: null, where: [] }
  t.notOk(membership.crowded(identity(), CHANNELS, filter), "there is room")
  const { connection } = connect()
  connection.filter = filter
  live.place(connection, CHANNELS)
  t.notOk(membership.crowded(identity(), CHANNELS, filter))
  t.ok(membership.crowded(identity(), CHANNELS, { ...filter, key: "b" }))
  t.notOk(membership.crowded(identity(), new Set(["committee:2"]), undefined), "channels refuse nobody")
  t.end()
})
