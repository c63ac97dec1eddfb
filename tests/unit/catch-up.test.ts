/** A returning client on its way to the present, in orders that real servers rarely show. */

import t from "tap"
import { cursorText } from "../../relay/change/cursor.ts"
import { deferred } from "../../relay/lib/deferred.ts"
import type { LogReads } from "../../relay/replay/log-reads.ts"
import type { Outcome, Reader } from "../../relay/replay/read-group.ts"
import { createReplayBuffer, sizeOf } from "../../relay/replay/replay-buffer.ts"
import type { Joined } from "../../relay/replay/returning.ts"
import { buildHub, cursorAt, type HubOptions, identity, message, snapshotAt } from "../helpers/hub.ts"
import { type FakeWire, SlowWire } from "../helpers/wire.ts"

const CHANNELS = new Set(["committee:1"])
const textAt = (xmax: number | string): string => cursorText(cursorAt(xmax))
/** More than a connection may be owed. */
const LARGE = "x".repeat(1_100_000)

/** Everything that can happen without a signal from outside has happened. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
}

/** Reads of the log that the test answers. */
function askedReads(): { logReads: LogReads; next(): { reader: Reader; end(outcome: Outcome): void } } {
  const asked: Array<{ reader: Reader; end(outcome: Outcome): void }> = []
  return {
    logReads: {
      read: (reader) => new Promise((end) => asked.push({ reader, end })),
      stop() {},
    },
    next: () => asked.shift() ?? (t.fail("no read was asked for") as never),
  }
}

/** A client that returns with a cursor. */
function returning(hub: ReturnType<typeof buildHub>, since: string) {
  const client = hub.connect()
  const answers: Joined[] = []
  const join = () => hub.membership.join(client.connection, CHANNELS, since, (joined) => answers.push(joined))
  return { ...client, answers, join }
}

/** A buffer with room for so many small changes. */
const bufferFor = (changes: number) => createReplayBuffer(changes * sizeOf([message(1)]))

/**
 * A client in the middle of a replay: it is owed one batch of two, and its socket is full.
 * @param before the sockets of clients that came earlier.
 */
async function halfway({ before = [], ...options }: HubOptions & { before?: readonly FakeWire[] } = {}) {
  const hub = buildHub({ buffer: createReplayBuffer(100_000_000), ...options })
  for (const wire of before) hub.connect(identity(), wire)
  await hub.deliver(11, { changes: [message(10, "committee:1", LARGE)] })
  await hub.deliver(12, { changes: [message(11)] })
  const client = returning(hub, textAt(10))
  client.wire.full = true
  client.join()
  await settle()
  t.match(client.answers, [{ recovered: true, replayed: null }], "it is on its way")
  t.equal(hub.replays.size(), 1)
  return { ...hub, ...client }
}

function drain({ wire, connection }: Pick<Awaited<ReturnType<typeof halfway>>, "wire" | "connection">): void {
  wire.full = false
  connection.pump()
}

t.test("a socket that drains lets the replay go on to its end", async (t) => {
  const all = await halfway()
  t.same(all.wire.read(), [])
  drain(all)
  await settle()
  t.same(all.wire.read(), [LARGE, textAt(11), 11, textAt(12)])
  t.ok(all.connection.lane, "it is live")
  await all.deliver(13, { changes: [message(12)] })
  t.same(all.wire.read().slice(4), [12, textAt(13)])
})

t.test("a socket that drains while it closes is sent nothing more", async (t) => {
  const all = await halfway()
  all.connection.close(4000, "time to connect anew")
  drain(all)
  await settle()
  t.same(all.wire.read(), [])
  t.equal(all.connection.lane, undefined)
  t.equal(all.replays.size(), 0)
  t.equal(all.router.size(), 0, "it takes no place")
})

t.test("a reset ends a replay, whatever begins then", async (t) => {
  const all = await halfway({ before: Array.from({ length: 10 }, () => new SlowWire()) })
  all.hub.reset()
  t.same(all.codes, [], "its closing takes its time")
  all.hub.adopt("l", new Set(["l"]))
  all.hub.begin(cursorAt(12), [])
  drain(all)
  await settle()
  t.same(all.codes, [4010])
  t.same(all.wire.read(), [], "nothing that was promised before")
  t.equal(all.router.size(), 0)
})

t.test("what is forgotten while the socket drains comes from the log", async (t) => {
  const { logReads, next } = askedReads()
  const all = await halfway({ logReads })
  // As if others had filled the memory.
  all.buffer.begin(snapshotAt(12))
  await all.deliver(13, { changes: [message(12)] })
  drain(all)
  await settle()
  const { reader, end } = next()
  t.equal(reader.since.text, snapshotAt(11).text, "from where it stands, not from its cursor")
  t.equal(reader.rest, undefined)
  reader.take({
    head: { snapshot: snapshotAt(12), horizon: snapshotAt(1), leaseMs: null },
    changes: [message(11)],
    revocations: [],
    canaries: [],
    last: undefined,
    final: true,
  })
  end({ kind: "done", until: snapshotAt(12) })
  await settle()
  t.same(all.wire.read(), [LARGE, textAt(11), 11, textAt(12), 12, textAt(13)], "each change once")
  t.ok(all.connection.lane)
})

t.test("a batch that is forgotten half way is finished from the log", async (t) => {
  const { logReads, next } = askedReads()
  const hub = buildHub({ buffer: bufferFor(2), logReads })
  await hub.deliver(14, { changes: [message(10)], final: false })
  const client = returning(hub, textAt(10))
  client.join()
  await settle()
  t.same(client.wire.read(), [10], "no position in the middle of a batch")
  // More than there is room for: nothing of this batch is kept.
  await hub.deliver(14, { changes: [message(11), message(12)], first: false, final: false })
  await settle()
  const { reader, end } = next()
  t.equal(reader.since.text, snapshotAt(10).text)
  t.match(reader.rest, { until: { text: snapshotAt(14).text }, after: "10" })
  end({ kind: "failed" })
  await settle()
  t.same(client.codes, [4011])
})

t.test("a replay does not end in the middle of a batch, even if nothing of it has come yet", async (t) => {
  const hub = buildHub()
  await hub.deliver(12, { final: false })
  const client = returning(hub, textAt(10))
  client.join()
  await settle()
  t.equal(client.connection.lane, undefined)
  await hub.deliver(12, { changes: [message(10)], first: false })
  await settle()
  t.same(client.wire.read(), [10, textAt(12)])
  t.ok(client.connection.lane)
})

t.test("a batch that the feed loses half way is finished from the log", async (t) => {
  const { logReads, next } = askedReads()
  const fresh = deferred<boolean>()
  const hub = buildHub({ logReads, source: { refresh: () => fresh.promise } })
  await hub.deliver(12, { changes: [message(10)], final: false })
  const client = returning(hub, textAt(10))
  client.join()
  await settle()
  t.same(client.wire.read(), [10])
  hub.hub.lost()
  await settle()
  const { reader, end } = next()
  t.match(reader.rest, { until: { text: snapshotAt(12).text }, after: "10" })
  end({ kind: "done", until: snapshotAt(12) })
  await settle()
  t.equal(hub.replays.size(), 1, "the feed has not come as far again")
  await hub.deliver(13, { changes: [message(10), message(11), message(12)] })
  fresh.resolve(true)
  await settle()
  t.same(client.wire.read(), [10, textAt(12), 12, textAt(13)], "each change once")
})

t.test("a promise that was made is not taken back: the client tries again", async (t) => {
  const { logReads, next } = askedReads()
  const hub = buildHub({ logReads })
  await hub.deliver(12, { changes: [message(10)], final: false })
  const client = returning(hub, textAt(10))
  client.join()
  await settle()
  hub.hub.lost()
  await settle()
  next().end({ kind: "done", until: snapshotAt(12) })
  await settle()
  t.match(client.answers, [{ recovered: true }])
  t.same(client.codes, [4011], "the feed has read the log again and not come as far")
})

t.test("a read that is cut goes on where it was when the client has read", async (t) => {
  const { logReads, next } = askedReads()
  const hub = buildHub({ logReads })
  hub.position.begin(cursorAt(20))
  const client = returning(hub, textAt(5))
  client.join()
  await settle()
  const first = next()
  t.equal(first.reader.since.text, snapshotAt(5).text)
  client.wire.full = true
  const rest = { until: snapshotAt(20), after: "7" }
  first.end({ kind: "cut", rest })
  await settle()
  t.same(next().reader.rest, rest)
})

t.test(
  "a log that no longer holds the rest ends the connection, and one that never did is an answer",
  async (t) => {
    for (const answered of [false, true]) {
      const { logReads, next } = askedReads()
      const hub = buildHub({ logReads })
      hub.position.begin(cursorAt(20))
      const client = returning(hub, textAt(5))
      client.join()
      await settle()
      const { reader, end } = next()
      if (answered)
        reader.take({
          head: { snapshot: snapshotAt(20), horizon: snapshotAt(1), leaseMs: null },
          changes: [message(6)],
          revocations: [],
          canaries: [],
          last: undefined,
          final: false,
        })
      end({ kind: "too_old" })
      await settle()
      t.same(client.codes, answered ? [4010] : [])
      t.match(client.answers, [{ recovered: answered, reason: answered ? null : "too_old" }])
      t.equal(client.connection.lane === undefined, answered)
    }
  },
)

t.test("a cursor that is ahead waits for the feed", async (t) => {
  for (const end of ["reached", "not reached", "no read"] as const) {
    const fresh = deferred<boolean>()
    const hub = buildHub({ source: { refresh: () => fresh.promise } })
    const client = returning(hub, textAt(12))
    client.join()
    await settle()
    t.same(client.answers, [])
    if (end === "reached") await hub.deliver(12, { changes: [message(10), message(11)] })
    fresh.resolve(end !== "no read")
    await settle()
    t.same(client.codes, end === "no read" ? [4011] : [])
    t.match(
      client.answers,
      {
        reached: [{ cursor: textAt(12), recovered: true, replayed: 0 }],
        "not reached": [{ cursor: textAt(10), recovered: false, reason: "ahead" }],
        "no read": [],
      }[end],
      end,
    )
  }
})

t.test("a lineage that the feed adopts meanwhile holds, and one that it does not is refused", async (t) => {
  for (const adopted of [true, false]) {
    const fresh = deferred<boolean>()
    const hub = buildHub({ source: { refresh: () => fresh.promise } })
    const client = returning(hub, textAt(10).replace("l:", "m:"))
    client.join()
    await settle()
    if (adopted) hub.hub.adopt("m", new Set(["l", "m"]))
    fresh.resolve(true)
    await settle()
    t.match(client.answers, [adopted ? { recovered: true } : { recovered: false, reason: "lineage" }])
    t.ok(client.connection.lane, "live in any case")
  }
})

t.test("a client that is closed by its own answer takes no place", async (t) => {
  for (const since of [textAt(10), "nonsense"]) {
    const hub = buildHub()
    const { connection } = hub.connect()
    hub.membership.join(connection, CHANNELS, since, () => connection.close(4008, "slow consumer"))
    await settle()
    t.equal(connection.lane, undefined)
    t.equal(hub.router.size(), 0)
    t.equal(hub.replays.size(), 0)
  }
})

t.test("channels that are taken away in a replay are not replayed", async (t) => {
  const all = await halfway()
  all.replays.narrow(all.connection, new Set())
  drain(all)
  await settle()
  t.same(all.wire.read(), [LARGE, textAt(11), textAt(12)])
  t.same([...(all.connection.lane?.subscription.channels ?? ["none"])], [])
})
