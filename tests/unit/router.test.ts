/** The router: every lane that sees a change gets it, and no other lane costs anything. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import type { Rights } from "../../relay/access/rights.ts"
import type { Change } from "../../relay/change/change.ts"
import type { Lane, Member } from "../../relay/fanout/lane.ts"
import { createRouter, type Router } from "../../relay/fanout/router.ts"
import { type Subscription, view } from "../../relay/fanout/visibility.ts"
import { TimeSlice } from "../../relay/lib/time-slice.ts"
import { amendFilter, type Filter, FilterFields } from "../../relay/protocol/filter.ts"
import { readChange } from "../helpers/change.ts"

const EVERYTHING: Rights = { committees: null, elections: null, channels: null, roles: new Set(["teller"]) }
const META = JSON.stringify({
  scope: { committee: "committee_id", election: "election_id", user: "user_id" },
  restricted: [["votes", ["teller"]]],
})

type Row = {
  committee_id: number | null
  election_id: number | null
  user_id: number | null
  votes: number | null
}

let seq = 0
const base = () => ({
  seq: String(++seq),
  xid: "5",
  at: "2026-11-03 20:15:00+00",
  table: "public.vote",
  type: "voting_update",
})
const rowChange = (before: Row | null, after: Row | null): Change =>
  readChange({
    ...base(),
    op: before === null ? "insert" : after === null ? "delete" : "update",
    old: before && JSON.stringify(before),
    new: after && JSON.stringify(after),
    meta: META,
  })
/** The same, of rows that were too large: all but the columns of the channels is lost. */
function oversizeChange(before: Row | null, after: Row | null): Change {
  const cut = (row: Row | null) => row && ({ ...row, votes: undefined } as unknown as Row)
  return { ...rowChange(cut(before), cut(after)), oversize: true } as Change
}
const truncate = (): Change => readChange({ ...base(), op: "truncate", old: null, new: null, meta: META })
const message = (channel: string): Change =>
  readChange({ ...base(), op: "message", old: null, new: "1", meta: JSON.stringify({ channel }) })

/** Somebody in the lane of a subscription. */
function join(router: Router, subscription: Subscription, user: string): { lane: Lane; member: Member } {
  const lane = router.laneFor(subscription)
  const member: Member = { user, position: 0, index: 0, pump() {}, tookAt: (now) => now, giveUp() {} }
  lane.add(member)
  return { lane, member }
}

const id = fc.constantFrom(null, 1, 2)
const row = fc.record({ committee_id: id, election_id: id, user_id: id, votes: id })
const change = fc.oneof(
  row.map((after) => rowChange(null, after)),
  fc.tuple(row, row).map(([before, after]) => rowChange(before, after)),
  row.map((before) => rowChange(before, null)),
  fc.tuple(fc.option(row), row).map(([before, after]) => oversizeChange(before, after)),
  row.map((before) => oversizeChange(before, null)),
  fc.constant(null).map(truncate),
  fc.constantFrom("election_updates", "committee:1", "user:1", "hall:1").map(message),
)
const filterOf = (fields: object) => amendFilter(undefined, FilterFields.parse(fields))
const where = fc.dictionary(
  fc.constantFrom("committee_id", "election_id", "user_id", "votes"),
  fc.oneof(
    fc.constantFrom(null, 1, 2, "2", { neq: 1 }, { gte: 2 }, { lt: 2 }, { eq: 1, in: [1, 2] }),
    fc.uniqueArray(fc.constantFrom(1, 2, "1"), { minLength: 1 }).map((values) => ({ in: values })),
  ),
  { minKeys: 1, maxKeys: 2 },
)
const filter = fc
  .oneof(
    fc.record({ where }),
    fc.record({ where, actions: fc.constant(["leave", "delete"]) }),
    fc.record({
      types: fc.constantFrom(["voting_update"], ["message"], ["x", "voting_update"]),
      actions: fc.subarray(["create", "update", "leave", "truncate"], { minLength: 1 }),
    }),
    fc.constant({}),
  )
  .map(filterOf)
/** Often none, so that lanes stand under the values of their filters too. */
const some = (...values: string[]) =>
  fc.option(
    fc.subarray(values).map((found) => new Set(found)),
    { freq: 1 },
  )
const subscription: fc.Arbitrary<Subscription> = fc.record({
  channels: fc
    .subarray(["election_updates", "committee:1", "committee:2", "election:1", "hall:1"])
    .map((channels) => new Set(channels)),
  rights: fc.record({
    committees: some("1", "2"),
    elections: some("1", "2"),
    channels: some("election_updates", "committee:1", "election:2", "user:1", "hall:1"),
    roles: fc.subarray(["teller", "clerk"]).map((roles) => new Set(roles)),
  }),
  filter,
})

t.test(
  "each lane gets what its subscription sees, and each user what only the own channel shows",
  async (t) => {
    const crowd = fc.array(fc.tuple(subscription, fc.constantFrom("1", "2", "3")), { maxLength: 8 })
    const property = fc.asyncProperty(crowd, fc.array(change, { maxLength: 5 }), async (people, changes) => {
      const router = createRouter()
      const joined = people.map(([subscription, user]) => ({ ...join(router, subscription, user), user }))
      const { touched, unseen } = await router.route(changes, new TimeSlice())
      let seen = new Set<Change>()
      for (const { lane, user } of joined) {
        const shared = changes.filter((one) => view(one, lane.subscription) !== "none")
        const own = changes.filter(
          (one) => view(one, lane.subscription) !== view(one, lane.subscription, `user:${user}`),
        )
        assert.deepEqual(
          lane.visibleChanges.map((visibleChange) => visibleChange.change),
          shared,
        )
        assert.equal(lane.ownUsers.has(user), own.length > 0)
        assert.equal(touched.has(lane), lane.visibleChanges.length + lane.ownUsers.size > 0)
        seen = new Set([...seen, ...shared, ...own])
      }
      assert.equal(unseen, changes.length - seen.size)
      assert.equal(router.users(), new Set(joined.map(({ user }) => user)).size)
      for (const { lane, member } of joined) {
        lane.remove(member)
        router.retire(lane)
      }
      assert.equal(router.users(), 0)
      assert.equal(router.size(), 0)
      for (const { lane } of joined) assert.ok(!router.has(lane.subscription))
      assert.equal((await router.route(changes, new TimeSlice())).touched.size, 0)
    })
    await t.resolves(fc.assert(property, { numRuns: 500 }))
  },
)

/** Channels that note when somebody looks. */
class Watched extends Set<string> {
  looks = 0
  override has(channel: string): boolean {
    this.looks++
    return super.has(channel)
  }
}

for (const [name, channelsOf, rights, filterFor] of [
  ["channels", (n: number) => [`committee:${n}`], () => EVERYTHING],
  [
    "channels, with a token for all rows",
    (n: number) => [`committee:${n}`, `hall:${n}`],
    () => ({ ...EVERYTHING, channels: new Set(["election_updates"]) }),
  ],
  [
    "committees in their tokens",
    () => ["election_updates"],
    (n: number) => ({ ...EVERYTHING, committees: new Set([`${n}`]) }),
  ],
  [
    "elections in their tokens",
    () => ["election_updates"],
    (n: number) => ({ ...EVERYTHING, elections: new Set([`${n}`]) }),
  ],
  [
    "committees in their filters",
    () => ["election_updates"],
    () => EVERYTHING,
    (n: number) => filterOf({ where: { committee_id: n, votes: { gte: 0 } } }),
  ],
  [
    "committees in their filters, several each, also as text",
    () => ["election_updates"],
    () => EVERYTHING,
    (n: number) => filterOf({ where: { committee_id: { in: [n, String(n + 10_000)] } } }),
  ],
] satisfies [
  string,
  (n: number) => string[],
  (n: number) => Rights,
  ((n: number) => Filter | undefined)?,
][]) {
  t.test(`a thousand lanes by ${name}: a change is held against those that it concerns`, async (t) => {
    const router = createRouter()
    const watched = Array.from({ length: 1_000 }, (_, n) => {
      const channels = new Watched(channelsOf(n))
      const { lane } = join(router, { channels, rights: rights(n), filter: filterFor?.(n) }, `${n}`)
      const has = lane.users.has.bind(lane.users)
      lane.users.has = (user) => {
        channels.looks++
        return has(user)
      }
      channels.looks = 0
      return channels
    })
    const { touched } = await router.route(
      [rowChange(null, { committee_id: 5, election_id: 5, user_id: 7, votes: 1 })],
      new TimeSlice(),
    )
    const concerned = { channels: new Set(channelsOf(5)), rights: rights(5), filter: filterFor?.(5) }
    t.equal(touched.has(router.laneFor(concerned)), true)
    t.same(
      watched.flatMap(({ looks }, n) => (looks > 0 ? [n] : [])),
      [5, 7],
      "the committee's, and that of the row's user",
    )
  })
}
