/** What waits for those who do not read is bounded for all of them together, and nobody's share is at others' cost. */

import t from "tap"
import { buildHub, identity, message } from "../helpers/hub.ts"

const LARGE = 400_000
const payload = "x".repeat(LARGE)

/** A hub, and a way to have a user join channels and read nothing. */
function world(allLanesBytes: number) {
  const hub = buildHub({ allLanesBytes })
  let xid = 10
  return {
    ...hub,
    paused(user: string, ...channels: string[]) {
      const client = hub.connect(identity({ user }))
      client.wire.full = true
      client.wire.queued = 1
      hub.membership.join(client.connection, new Set(channels), undefined, () => {})
      return client
    },
    /** A large message on each channel, in one batch. */
    async send(...channels: string[]) {
      xid++
      await hub.deliver(xid + 1, { changes: channels.map((channel) => message(xid, channel, payload)) })
    },
  }
}

t.test(
  "lanes that show the same hold it once, and when the last reader has left nothing is held",
  async (t) => {
    const { paused, send, router, membership } = world(10 * LARGE)
    const many = Array.from({ length: 50 }, (_, n) => paused("8", "committee:1", `committee:${100 + n}`))
    await send("committee:1")
    t.equal(router.size(), 50)
    const held = router.held()
    t.ok(held > LARGE && held < 1.1 * LARGE, `${held} bytes`)
    for (const { codes } of many) t.same(codes, [])
    const [last, ...others] = many.map(({ connection }) => connection)
    for (const connection of others) membership.forget(connection)
    t.equal(router.held(), held, "for one who is there still")
    if (last !== undefined) membership.forget(last)
    t.equal(router.held(), 0)
  },
)

t.test("beyond the bound the one for whom most is kept gives way, the furthest behind first", async (t) => {
  const { paused, send, router } = world(10 * LARGE)
  const one = paused("9", "committee:9")
  const many = Array.from({ length: 8 }, (_, n) => paused("8", `committee:${100 + n}`))
  const all = ["committee:9", ...many.map((_, n) => `committee:${100 + n}`)]
  await send(...all)
  t.same(
    many.flatMap(({ codes }) => codes),
    [],
    "there is room for all of it",
  )
  await send("committee:100")
  await send("committee:9", "committee:101")
  t.ok(router.held() <= 10 * LARGE, `${router.held()} bytes`)
  t.same(one.codes, [], "nobody else gives way")
  const closed = many.flatMap(({ codes }, n) => (codes.length > 0 ? [[n, ...codes]] : []))
  t.same(closed.slice(0, 2), [
    [0, 4008],
    [1, 4008],
  ])
  t.ok(closed.length < many.length, "nor more than needed")
  one.wire.full = false
  for (let n = 0; n < 2; n++) one.connection.pump()
  t.equal(one.wire.read().filter((text) => text === payload).length, 2)
})

t.test("who reads is not closed, however much there is", async (t) => {
  const { paused, connect, membership, send, router } = world(2 * LARGE)
  const reading = connect(identity({ user: "8" }))
  membership.join(reading.connection, new Set(["committee:1"]), undefined, () => {})
  const stuck = paused("8", "committee:1", "committee:2")
  for (let n = 0; n < 10; n++) await send("committee:1", "committee:2")
  t.same(reading.codes, [])
  t.equal(reading.wire.read().filter((text) => text === payload).length, 10)
  t.same(stuck.codes, [4008])
  t.equal(router.held(), 0)
})
