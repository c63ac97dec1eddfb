/** The way of a batch through the hub, in orders that a real feed rarely brings. */

import t from "tap"
import { type Cursor, cursorText } from "../../relay/change/cursor.ts"
import type { Joined } from "../../relay/replay/returning.ts"
import { buildHub, cursorAt, identity, message, snapshotAt } from "../helpers/hub.ts"
import { SlowWire } from "../helpers/wire.ts"

const CHANNELS = new Set(["committee:1"])
const textAt = (xmax: number): string => cursorText(cursorAt(xmax))
const turnOfTheLoop = () => new Promise(setImmediate)

t.test("a client that joins in the middle of a batch skips the whole of it", async (t) => {
  const { membership, deliver, connect } = buildHub()
  const early = connect()
  membership.join(early.connection, CHANNELS, undefined, () => {})
  await deliver(12, { changes: [message(10)], final: false })
  const late = connect()
  const answers: Joined[] = []
  membership.join(late.connection, CHANNELS, undefined, (joined) => answers.push(joined))
  t.match(answers, [{ cursor: textAt(12), recovered: false }], "the position after the batch")
  await deliver(12, { changes: [message(11)], first: false })
  await deliver(13, { changes: [message(12)] })
  t.same(early.wire.read(), [10, 11, textAt(12), 12])
  t.same(late.wire.read(), [12], "nothing of what its cursor covers")
})

t.test("a huge batch goes on beside a client that takes nothing", async (t) => {
  const { membership, deliver, connect } = buildHub()
  const [paused, reading] = [connect(), connect()]
  for (const { connection } of [paused, reading]) membership.join(connection, CHANNELS, undefined, () => {})
  paused.wire.full = true
  paused.wire.queued = 1
  const half = "x".repeat(400_000)
  for (let n = 0; n < 10; n++) {
    const changes = [message(10, "committee:1", half), message(10)]
    await deliver(11, { changes, first: n === 0, final: n === 9 })
  }
  t.equal(reading.wire.messages().length, 21, "all of it, and a checkpoint")
  t.same(paused.wire.read(), [])
  t.ok(paused.connection.overrun, "it comes back with its cursor")
})

t.test("a revocation closes its user before the changes that come with it", async (t) => {
  const { membership, deliver, connect } = buildHub()
  const revoked = connect(identity({ user: "1" }))
  const other = connect(identity({ user: "2" }))
  for (const { connection } of [revoked, other]) membership.join(connection, CHANNELS, undefined, () => {})
  await deliver(12, { changes: [message(10)], final: false })
  await deliver(12, {
    changes: [message(11)],
    revocations: [{ kind: "user", value: "1", until: null, issued_before: null }],
    first: false,
  })
  t.same(revoked.codes, [4507])
  t.same(revoked.wire.read(), [10])
  t.same(other.codes, [])
  t.same(other.wire.read(), [10, 11, textAt(12)])
})

t.test("a token that is admitted in the middle of a revocation is judged by it", async (t) => {
  const { deliver, connect, revocations } = buildHub()
  for (let n = 0; n < 10; n++) connect(identity({ user: String(n) }))
  const revoked = { kind: "user" as const, value: "new", until: null, issued_before: null }
  const done = deliver(11, { revocations: [revoked] })
  t.ok(revocations.refuses(identity({ user: "new" })), "before the first connection is looked at")
  await done
})

t.test("a feed that is lost in the middle of a batch falls back to the position before it", async (t) => {
  const { hub, membership, position, buffer, deliver, connect } = buildHub()
  const early = connect()
  membership.join(early.connection, CHANNELS, undefined, () => {})
  await deliver(12, { changes: [message(10)], final: false })
  const answers: Joined[] = []
  const wider = (channels: ReadonlySet<string>) => new Set([...channels, "committee:2"])
  membership.rejoin(early.connection, wider, undefined, (joined) => answers.push(joined))
  t.same(answers, [], "it waits for the end of the batch")
  hub.lost()
  t.match(answers, [{ cursor: textAt(10) }], "what waited runs, with the position before the batch")
  t.match(position.head, { snapshot: { text: snapshotAt(10).text } } satisfies {
    snapshot: Partial<Cursor["snapshot"]>
  })
  t.notOk(position.inBatch)
  t.ok(buffer.covers(snapshotAt(10)))
  await deliver(12, { changes: [message(10), message(11, "committee:2")] })
  t.same(early.wire.read(), [10, 10, 11, textAt(12)], "the batch comes again, whole")
  const returned = connect()
  membership.join(returned.connection, new Set([...CHANNELS, "committee:2"]), textAt(10), () => {})
  while (returned.connection.lane === undefined) await turnOfTheLoop()
  t.same(returned.wire.read(), [10, 11, textAt(12)], "what came of it before is not remembered")
})

t.test("a feed that is lost between two batches keeps its position", async (t) => {
  const { hub, position, deliver } = buildHub()
  await deliver(12, { changes: [message(10)] })
  hub.lost()
  t.equal(position.head?.snapshot.text, snapshotAt(12).text)
})

t.test("a reset empties the lanes at once and drops what waits", async (t) => {
  const { hub, membership, router, position, deliver, connect } = buildHub()
  const both = [connect(identity(), new SlowWire()), connect()]
  for (const { connection } of both) membership.join(connection, CHANNELS, undefined, () => {})
  await deliver(12, { changes: [message(10)], final: false })
  membership.rejoin(
    (both[0] as (typeof both)[0]).connection,
    () => t.fail("its batch never ended") as never,
    undefined,
    () => t.fail("and there is no answer"),
  )
  position.afterBatch(() => t.fail("it never ended"))
  hub.reset()
  t.same(both[1]?.codes, [], "the closing takes its time")
  t.equal(router.size(), 0)
  t.equal(position.head, undefined)
  t.notOk(membership.ready())
  hub.adopt("m", new Set(["m"]))
  hub.begin({ ...cursorAt(20), lineage: "m" }, [])
  await deliver(21, { changes: [message(20)] })
  await turnOfTheLoop()
  for (const { codes, wire } of both) {
    t.same(codes, [4010])
    t.same(wire.read(), [10], "nothing of the new log")
  }
})
