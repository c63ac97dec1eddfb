/** The frame cache: each gets what it misses and may see, however much is shared with others, and little is kept. */

import t from "tap"
import type { Change } from "../../relay/change/change.ts"
import { parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { type Subscription, subscriptionKey } from "../../relay/fanout/visibility.ts"
import { createFrameCache, type MissedFrames, type Missing } from "../../relay/replay/frame-cache.ts"

const message = (xid: number, channel: string, text: string): Change => ({
  kind: "message",
  op: "message",
  id: String(xid),
  xid: String(xid),
  at: "",
  channel,
  payload: JSON.stringify(text),
})

const EVERYTHING = { committees: null, elections: null, channels: null, roles: new Set<string>() }

/** Somebody with a position, a user and channels. */
function somebody(has: string, user = "1", ...channels: string[]): Missing {
  const subscription: Subscription = {
    channels: new Set(channels.length === 0 ? ["election_updates"] : channels),
    rights: EVERYTHING,
  }
  return { has: parseSnapshot(has) as Snapshot, subscription, key: subscriptionKey(subscription), user }
}

const textOf = ({ chunks }: MissedFrames): string => Buffer.concat(chunks).toString("latin1")
const payloads = (missed: MissedFrames): string[] =>
  [...textOf(missed).matchAll(/"payload":"(.*?)"/g)].map((match) => match[1] as string)
const lasts = (missed: MissedFrames): string[] =>
  [...textOf(missed).matchAll(/"last":(\w+)/g)].map((match) => match[1] as string)

t.test("users with the same channels get each their own messages", async (t) => {
  const frameCache = createFrameCache()
  const changes = [
    message(5, "user:1", "for 1"),
    message(6, "election_updates", "for all"),
    message(7, "user:2", "for 2"),
  ]
  for (let round = 0; round < 2; round++) {
    for (const [user, expected] of [
      ["1", ["for 1", "for all"]],
      ["2", ["for all", "for 2"]],
      ["3", ["for all"]],
    ] as const)
      t.same(payloads(frameCache.of(changes, true, somebody("5:5:", user))), expected, `user ${user}`)
  }
})

t.test(
  "positions that hold different transactions of the same changes get each what they lack",
  async (t) => {
    const frameCache = createFrameCache()
    const changes = [5, 6, 7].map((xid) => message(xid, "election_updates", String(xid)))
    for (let round = 0; round < 2; round++) {
      for (const [has, expected] of [
        ["5:7:5", ["5", "7"]],
        ["6:7:6", ["6", "7"]],
        ["5:7:5,6", ["5", "6", "7"]],
        ["7:7:", ["7"]],
        ["5:5:", ["5", "6", "7"]],
        ["8:8:", []],
      ] as const)
        t.same(payloads(frameCache.of(changes, true, somebody(has))), expected, has)
    }
  },
)

t.test("channels, and whether a transaction is known to end here, make a difference", async (t) => {
  const frameCache = createFrameCache()
  const changes = [message(5, "committee:1", "one"), message(5, "committee:2", "two")]
  for (let round = 0; round < 2; round++) {
    t.same(payloads(frameCache.of(changes, true, somebody("5:5:", "1", "committee:1"))), ["one"])
    t.same(payloads(frameCache.of(changes, true, somebody("5:5:", "1", "committee:2"))), ["two"])
    const both = somebody("5:5:", "1", "committee:1", "committee:2")
    t.same(lasts(frameCache.of(changes, false, both)), ["false", "false"])
    t.same(lasts(frameCache.of(changes, true, both)), ["false", "true"])
  }
})

t.test("the same is made once for all who miss it, wherever before the changes they are", async (t) => {
  const frameCache = createFrameCache()
  const changes = [message(9, "election_updates", "x")]
  const made = frameCache.of(changes, true, somebody("5:5:", "1"))
  t.equal(frameCache.of(changes, true, somebody("3:7:3,4", "2")), made)
})

t.test("what was asked for longest ago is forgotten when it is too much", async (t) => {
  const frameCache = createFrameCache()
  const parts = Array.from({ length: 40 }, (_, i) => [
    message(5, "election_updates", `${i}:${"x".repeat(1_000_000)}`),
  ])
  const all = parts.map((changes) => frameCache.of(changes, true, somebody("5:5:")))
  t.equal(frameCache.of(parts[39] as Change[], true, somebody("5:5:")), all[39], "the latest is kept")
  const first = frameCache.of(parts[0] as Change[], true, somebody("5:5:"))
  t.not(first, all[0], "the first is not, of 40 MB")
  t.same(first.chunks, all[0]?.chunks, "and is the same when it is made anew")
})

t.test("of changes that somebody sees nothing of nothing is kept", async (t) => {
  const frameCache = createFrameCache()
  const changes = [message(5, "committee:1", "one")]
  const seeing = somebody("5:5:", "1", "committee:1")
  const kept = frameCache.of(changes, true, seeing)
  t.equal(kept.count, 1)
  const long = "x".repeat(20_000)
  for (let i = 0; i < 1_000; i++) {
    const { count, bytes } = frameCache.of(changes, true, somebody("5:5:", "1", `hall:${i}${long}`))
    if (count > 0 || bytes > 0) t.fail("sees something")
  }
  t.equal(frameCache.of(changes, true, seeing), kept, "40 MB of keys would have pushed it out")
})
