/** Who sees a figure: all that it sums up must be allowed, whatever was subscribed to. */

import fc from "fast-check"
import t from "tap"
import type { DerivedValue } from "../../relay/derived/value.ts"
import { seesValue, valueFrame } from "../../relay/fanout/latest-values.ts"
import { amendFilter, FilterFields } from "../../relay/protocol/filter.ts"

const PREFIXES = ["dashboard", "election", "committee", "turnout"]
const IDS = ["1", "2"]
const CHANNELS = PREFIXES.flatMap((prefix) => [prefix, ...IDS.map((id) => `${prefix}:${id}`)])

const someOf = (values: readonly string[]) => fc.subarray([...values]).map((some) => new Set(some))
const claim = (values: readonly string[]) => fc.option(someOf(values), { nil: null })
const rights = fc.record({
  committees: claim(IDS),
  elections: claim(IDS),
  channels: claim([...CHANNELS, "election_updates"]),
  roles: fc.constant(new Set<string>()),
})

t.test("nobody sees a figure of more than the token allows, and whoever may and asks sees it", async (t) => {
  const property = fc.property(
    fc.constantFrom(...CHANNELS),
    someOf([...CHANNELS, "election_updates"]),
    rights,
    (channel, channels, rights) => {
      const id = channel.split(":")[1]
      // The entries that the figure sums up: those of its election or committee, or all.
      const entries = IDS.flatMap((committee) => IDS.map((election) => ({ committee, election }))).filter(
        ({ committee, election }) => {
          if (id === undefined || channel.startsWith("turnout")) return true
          return channel.startsWith("committee") ? committee === id : election === id
        },
      )
      // An id that no row has yet could come at any time: a list of ids is never all of them.
      const unbounded = (kind: "committee" | "election") =>
        new Set(entries.map((entry) => entry[kind])).size > 1
      const allowed = (ids: ReadonlySet<string> | null, kind: "committee" | "election") =>
        ids === null || (!unbounded(kind) && entries.every((entry) => ids.has(entry[kind])))
      const lies = /^(election|committee):/.test(channel) ? [channel, "election_updates"] : [channel]
      const expected =
        lies.some((name) => channels.has(name)) &&
        lies.some((name) => rights.channels?.has(name) ?? true) &&
        allowed(rights.committees, "committee") &&
        allowed(rights.elections, "election")
      return seesValue({ type: "x", channel }, { channels, rights }) === expected
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 5_000 }))
})

t.test("of a filter only the types count", async (t) => {
  const subscription = (fields: object) => {
    const filter = amendFilter(undefined, FilterFields.parse(fields))
    return {
      channels: new Set(["dashboard"]),
      rights: { committees: null, elections: null, channels: null, roles: new Set<string>() },
      filter,
    }
  }
  const sees = (fields: object) => seesValue({ type: "x", channel: "dashboard" }, subscription(fields))
  t.equal(sees({ types: ["x"] }), true)
  t.equal(sees({ types: ["y"] }), false)
  t.equal(sees({ actions: ["create"], where: { status: "verified" } }), true)
})

t.test("a value goes out as PostgreSQL wrote it", async (t) => {
  const figure: DerivedValue = {
    type: "x",
    action: "results",
    channel: "election:1",
    data: '{"n" : 12345678901234567890.10}',
    at: "2026-11-03T20:00:00.000Z",
  }
  const text = (frame: Buffer) => frame.subarray(frame[1] === 126 ? 4 : 2).toString()
  t.equal(
    text(valueFrame(figure)),
    '{"type":"x","action":"results","channel":"election:1","at":"2026-11-03T20:00:00.000Z","data":{"n" : 12345678901234567890.10}}',
  )
  t.notMatch(text(valueFrame({ ...figure, action: null })), /action/)
})
