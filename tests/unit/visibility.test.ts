/** Who sees what, against a rule written anew from the words of the protocol. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import { mayJoin, type Rights } from "../../relay/access/rights.ts"
import type { Change } from "../../relay/change/change.ts"
import { frameOf } from "../../relay/fanout/frames.ts"
import { type Subscription, subscriptionKey, view, visibleChangeOf } from "../../relay/fanout/visibility.ts"
import { amendFilter, FilterFields } from "../../relay/protocol/filter.ts"
import { readChange } from "../helpers/change.ts"

/** A row by its scope columns; a table without a column has no such property. */
type Scope = Partial<Record<"committee" | "election" | "user", number | null>>
/** Every row has this column too, of which no channel is made. */
type Row = Scope & { votes: number | null }
const PREFIXES = ["committee", "election", "user"] as const
const IDS = [1, 2]

interface Plain {
  channels: string[]
  committees: string[] | null
  elections: string[] | null
  listed: string[] | null
  roles: string[]
  own: string
  /** Every condition must hold; a column that is not there is null. */
  where: Condition[] | null
  types: string[] | null
  actions: string[] | null
}

interface Condition {
  column: "votes" | "committee_id" | "user_id"
  operator: "eq" | "neq" | "lt" | "gte"
  operand: number
}

const claim = (values: string[]) => fc.option(fc.subarray(values))
const plain: fc.Arbitrary<Plain> = fc.record({
  channels: fc.subarray([
    "election_updates",
    "committee:1",
    "committee:2",
    "election:1",
    "election:2",
    "hall:1",
  ]),
  committees: claim(["1", "2"]),
  elections: claim(["1", "2"]),
  listed: claim(["election_updates", "committee:1", "election:2", "user:1", "hall:1"]),
  roles: fc.subarray(["teller", "clerk"]),
  own: fc.constantFrom("user:1", "user:2"),
  where: fc.option(
    fc.uniqueArray(
      fc.record<Condition>({
        column: fc.constantFrom("votes", "committee_id", "user_id"),
        operator: fc.constantFrom("eq", "neq", "lt", "gte"),
        operand: fc.constantFrom(1, 2),
      }),
      { minLength: 1, maxLength: 2, selector: ({ column, operator }) => column + operator },
    ),
  ),
  types: fc.option(fc.subarray(["t_update", "message", "other_update"], { minLength: 1 })),
  actions: fc.option(
    fc.subarray(["create", "update", "delete", "leave", "truncate", "bulk_load"], { minLength: 1 }),
  ),
})

const set = (values: string[] | null) => (values === null ? null : new Set(values))
const rightsOf = ({ committees, elections, listed, roles }: Plain): Rights => ({
  committees: set(committees),
  elections: set(elections),
  channels: set(listed),
  roles: new Set(roles),
})
const subscriptionOf = (who: Plain): Subscription => ({
  channels: new Set(who.channels),
  rights: rightsOf(who),
  filter: amendFilter(undefined, FilterFields.parse({ ...who, where: who.where && whereOf(who.where) })),
})

function whereOf(conditions: Condition[]): object {
  const where: Record<string, Record<string, number>> = {}
  for (const { column, operator, operand } of conditions)
    where[column] = { ...where[column], [operator]: operand }
  return where
}

function holds({ column, operator, operand }: Condition, row: Row): boolean {
  const value = { votes: row.votes, committee_id: row.committee, user_id: row.user }[column] ?? null
  switch (operator) {
    case "eq":
      return value === operand
    case "neq":
      return value !== operand
    case "lt":
      return value !== null && value < operand
    case "gte":
      return value !== null && value >= operand
  }
}

/** The rule in plain words: joined some channel of the row, every claim that there is allows it, every condition holds. */
function maySee(row: Row, who: Plain): boolean {
  if (who.where !== null && !who.where.every((condition) => holds(condition, row))) return false
  const lies = ["election_updates"]
  for (const prefix of PREFIXES) if (typeof row[prefix] === "number") lies.push(`${prefix}:${row[prefix]}`)
  const joined = [...who.channels, who.own]
  if (!lies.some((channel) => joined.includes(channel))) return false
  if (who.listed !== null && !lies.some((channel) => who.listed?.includes(channel))) return false
  if (
    who.committees !== null &&
    !(typeof row.committee === "number" && who.committees.includes(`${row.committee}`))
  )
    return false
  return (
    who.elections === null || (typeof row.election === "number" && who.elections.includes(`${row.election}`))
  )
}

/** Whether one who sees the row, or its table, is told that this happened to it. */
const wants = (who: Plain, type: string, action: string | null): boolean =>
  (who.types === null || who.types.includes(type)) &&
  (who.actions === null || action === null || who.actions.includes(action))

/** The roles that may see `votes`; null: everybody may. */
type Tellers = string[] | null
const tellers: fc.Arbitrary<Tellers> = fc.option(fc.subarray(["teller", "clerk"]))
const isShown = (who: Plain, tellers: Tellers): boolean =>
  tellers?.some((role) => who.roles.includes(role)) ?? true
/** The row as it is for somebody: what is not shown is as if there were no such column. */
const shownTo = (who: Plain, tellers: Tellers, row: Row): Row =>
  isShown(who, tellers) ? row : { ...row, votes: null }

const columns = fc.subarray([...PREFIXES])
const rowOf = (prefixes: readonly string[]): fc.Arbitrary<Row> =>
  fc.record({
    votes: fc.constantFrom(1, 2, null),
    ...Object.fromEntries(prefixes.map((prefix) => [prefix, fc.constantFrom(1, 2, null)])),
  })
const twoRows = columns.chain((prefixes) => fc.tuple(fc.constant(prefixes), rowOf(prefixes), rowOf(prefixes)))

function change(
  op: string,
  prefixes: readonly string[],
  old: Row | null,
  now: Row | null,
  tellers: Tellers = null,
): Change {
  const text = (row: Row | null) => {
    if (row === null) return null
    const { votes, ...scope } = row
    const ids = Object.fromEntries(Object.entries(scope).map(([prefix, id]) => [`${prefix}_id`, id]))
    return JSON.stringify({ id: 1, votes, ...ids })
  }
  return readChange({
    seq: "1",
    xid: "1",
    at: "2026-01-01 00:00:00+00",
    table: "public.t",
    op,
    type: "t_update",
    old: text(old),
    new: text(now),
    meta: JSON.stringify({
      key: ["id"],
      scope: Object.fromEntries(prefixes.map((prefix) => [prefix, `${prefix}_id`])),
      ...(tellers === null ? {} : { restricted: [["votes", tellers]] }),
    }),
  })
}

t.test("a row is seen by those who joined a channel of it and are allowed it by every claim", async (t) => {
  const property = fc.property(twoRows, plain, tellers, ([prefixes, before, after], who, tellers) => {
    const seen = (op: string, old: Row | null, now: Row | null) =>
      view(change(op, prefixes, old, now, tellers), subscriptionOf(who), who.own)
    const told = (as: string, action: string) => (wants(who, "t_update", action) ? as : "none")
    const [old, now] = [shownTo(who, tellers, before), shownTo(who, tellers, after)]
    assert.equal(seen("insert", null, after), maySee(now, who) ? told("whole", "create") : "none")
    assert.equal(seen("delete", before, null), maySee(old, who) ? told("whole", "delete") : "none")
    const moved = `${maySee(old, who)} ${maySee(now, who)}`
    const silent = !isShown(who, tellers) && JSON.stringify(old) === JSON.stringify(now)
    const expected = {
      "true true": silent ? "none" : told("whole", "update"),
      "true false": told("leave", "leave"),
      "false true": told("enter", "create"),
      "false false": "none",
    }[moved]
    assert.equal(seen("update", before, after), expected)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 5_000 }))
})

/** Rows that were too large for the log: all but the columns of the channels is lost. */
function oversize(
  op: string,
  prefixes: readonly string[],
  old: Row | null,
  now: Row | null,
  tellers: Tellers,
): Change {
  const cut = (row: Row | null) => row && ({ ...row, votes: undefined } as unknown as Row)
  return { ...change(op, prefixes, cut(old), cut(now), tellers), oversize: true } as Change
}

t.test(
  "an oversize row passes every condition on a column that it lost, and no right or other condition",
  async (t) => {
    const property = fc.property(twoRows, plain, tellers, ([prefixes, before, after], who, tellers) => {
      const seen = (op: string, old: Row | null, now: Row | null) =>
        view(oversize(op, prefixes, old, now, tellers), subscriptionOf(who), who.own)
      const told = (as: string, action: string) => (wants(who, "t_update", action) ? as : "none")
      const absent = PREFIXES.filter((prefix) => !prefixes.includes(prefix)).map((prefix) => `${prefix}_id`)
      // To one who is not shown the column it is null, and not unknown.
      const lost = isShown(who, tellers) ? ["votes", ...absent] : absent
      const lenient = { ...who, where: who.where?.filter(({ column }) => !lost.includes(column)) ?? null }
      const [old, now] = [shownTo(who, tellers, before), shownTo(who, tellers, after)]
      const [was, is] = [maySee(old, lenient), maySee(now, lenient)]
      assert.equal(seen("insert", null, after), is ? told("whole", "create") : "none")
      assert.equal(seen("delete", before, null), was ? told("whole", "delete") : "none")
      assert.equal(
        seen("update", before, after),
        was && is
          ? told("whole", "update")
          : was
            ? told("leave", "leave")
            : is
              ? told("enter", "create")
              : "none",
      )
    })
    t.doesNotThrow(() => fc.assert(property, { numRuns: 5_000 }))
  },
)

t.test("what is shown to somebody is the same whatever the hidden values are", async (t) => {
  const votes = fc.constantFrom(1, 2, null)
  const hiding = fc.constantFrom<string[]>([], ["teller"])
  const property = fc.property(
    twoRows,
    plain.filter(({ roles }) => !roles.includes("teller")),
    hiding,
    fc.tuple(votes, votes),
    ([prefixes, before, after], who, tellers, [one, two]) => {
      for (const [op, old, now] of [
        ["insert", null, after],
        ["delete", before, null],
        ["update", before, after],
      ] as const) {
        const visibleChange = (...[old, now]: [Row | null, Row | null]) =>
          visibleChangeOf(change(op, prefixes, old, now, tellers), subscriptionOf(who), who.own)
        const other = visibleChange(old && { ...old, votes: one }, now && { ...now, votes: two })
        const [seen, seenOther] = [visibleChange(old, now), other].map(
          (one) => one && frameOf(one, true).toString(),
        )
        assert.equal(seen, seenOther)
      }
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 3_000 }))
})

t.test("without the own channel it is the same as with one that no row lies in", async (t) => {
  const property = fc.property(twoRows, plain, ([prefixes, before, after], who) => {
    const update = change("update", prefixes, before, after)
    assert.equal(view(update, subscriptionOf(who)), view(update, subscriptionOf(who), "user:nobody"))
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})

/** Every row that a table with these columns could hold. */
function allRows(prefixes: readonly string[]): Row[] {
  return prefixes.reduce<Row[]>(
    (rows, prefix) => rows.flatMap((row) => [...IDS, null].map((id) => ({ ...row, [prefix]: id }))),
    [...IDS, null].map((votes) => ({ votes })),
  )
}

t.test("truncate and bulk_load are told to whoever could see a row of the table", async (t) => {
  const property = fc.property(
    columns,
    plain,
    fc.constantFrom("truncate", "bulk_load"),
    (prefixes, who, op) => {
      const told = view(change(op, prefixes, null, null), subscriptionOf(who), who.own)
      if (!wants(who, "t_update", op)) assert.equal(told, "none")
      else if (allRows(prefixes).some((row) => maySee(row, who))) assert.equal(told, "whole")
      else assert.ok(told === "none" || told === "whole")
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 3_000 }))
})

const NOBODY: Plain = {
  channels: ["election_updates"],
  committees: null,
  elections: null,
  listed: null,
  roles: [],
  own: "user:1",
  where: null,
  types: null,
  actions: null,
}

t.test("truncate and bulk_load are not told to those who can see no row of the table", async (t) => {
  const blind: Array<[what: string, prefixes: string[], who: Partial<Plain>]> = [
    ["a claim for a column that is not there", ["election"], { committees: ["1"] }],
    ["an empty claim", ["committee"], { committees: [] }],
    ["an empty claim of elections", ["election"], { elections: [] }],
    ["an empty list of channels", ["committee"], { listed: [] }],
    ["a list without a channel of the table", ["committee"], { listed: ["hall:1", "election:1"] }],
    ["no channel", ["committee"], { channels: [] }],
    ["channels of other tables", ["committee"], { channels: ["election:1", "hall:1"] }],
  ]
  for (const [what, prefixes, who] of blind) {
    const all = { ...NOBODY, ...who }
    for (const op of ["truncate", "bulk_load"])
      t.equal(view(change(op, prefixes, null, null), subscriptionOf(all), all.own), "none", what)
  }
  t.equal(view(change("truncate", [], null, null), subscriptionOf(NOBODY)), "whole")
})

t.test("a message is for those who joined its channel and may", async (t) => {
  const channel = fc.constantFrom("election_updates", "committee:1", "hall:1", "user:1", "user:2", "user:3")
  const property = fc.property(channel, plain, (to, who) => {
    const message = readChange({
      seq: "1",
      xid: "1",
      at: "2026-01-01 00:00:00+00",
      table: null,
      op: "message",
      type: "message",
      old: null,
      new: "{}",
      meta: JSON.stringify({ channel: to }),
    })
    const expected =
      [...who.channels, who.own].includes(to) &&
      (who.listed === null || who.listed.includes(to)) &&
      wants(who, "message", null)
    assert.equal(view(message, subscriptionOf(who), who.own), expected ? "whole" : "none")
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 2_000 }))
})

t.test("a channel may be joined if no claim is against it", async (t) => {
  const everything: Rights = { committees: null, elections: null, channels: null, roles: new Set() }
  const narrow = (rights: Partial<Rights>): Rights => ({ ...everything, ...rights })
  const cases: Array<[channel: string, rights: Rights, may: boolean]> = [
    ["election_updates", narrow({ committees: new Set(), elections: new Set(), channels: new Set() }), true],
    ["committee:1", everything, true],
    ["committee:1", narrow({ committees: new Set(["1"]) }), true],
    ["committee:1", narrow({ committees: new Set(["2", "11"]) }), false],
    ["committee:1", narrow({ elections: new Set() }), true],
    ["committee:1", narrow({ committees: new Set(["1"]), channels: new Set(["committee:2"]) }), false],
    ["committee:1", narrow({ channels: new Set(["committee:1"]) }), true],
    ["election:1", narrow({ elections: new Set(["1"]) }), true],
    ["election:1", narrow({ elections: new Set() }), false],
    ["user:7", narrow({ channels: new Set() }), true],
    ["user:8", everything, false],
    ["user:8", narrow({ channels: new Set(["user:8"]) }), false],
    ["user", everything, false],
    ["hall:1", everything, true],
    ["hall:1", narrow({ committees: new Set() }), true],
    ["hall:1", narrow({ channels: new Set(["hall"]) }), false],
    ["dashboard", everything, true],
    ["dashboard:1", everything, true],
    ["dashboard", narrow({ committees: new Set(["1"]) }), false],
    ["dashboard", narrow({ elections: new Set(["1"]) }), false],
    ["dashboard:1", narrow({ elections: new Set(["1"]) }), true],
    ["dashboard:2", narrow({ elections: new Set(["1"]) }), false],
    ["dashboard:1", narrow({ committees: new Set(["1"]) }), false],
    ["dashboard", narrow({ channels: new Set(["dashboard"]) }), true],
    ["dashboard:1", narrow({ channels: new Set(["dashboard"]) }), false],
  ]
  for (const [channel, rights, may] of cases) t.equal(mayJoin(channel, "7", rights), may, channel)
})

t.test("two subscriptions have one key if they are the same, in whatever order", async (t) => {
  const shuffled = <Value>(values: Value[] | null): fc.Arbitrary<Value[] | null> =>
    values === null ? fc.constant(null) : fc.shuffledSubarray(values, { minLength: values.length })
  const again = (who: Plain) =>
    fc.record({
      channels: shuffled(who.channels) as fc.Arbitrary<string[]>,
      committees: shuffled(who.committees),
      elections: shuffled(who.elections),
      listed: shuffled(who.listed),
      roles: shuffled(who.roles) as fc.Arbitrary<string[]>,
      own: fc.constant(who.own),
      where: shuffled(who.where),
      types: shuffled(who.types),
      actions: shuffled(who.actions),
    })
  const same = fc.property(
    plain.chain((who) => fc.tuple(fc.constant(who), again(who))),
    ([one, two]) => assert.equal(subscriptionKey(subscriptionOf(one)), subscriptionKey(subscriptionOf(two))),
  )
  t.doesNotThrow(() => fc.assert(same, { numRuns: 500 }))
  /** Somebody, and the same with some fields of another. */
  const nearlySame = fc
    .tuple(
      plain,
      plain,
      fc.subarray(["channels", "committees", "elections", "listed", "roles", "types"] as const),
    )
    .map(([one, another, fields]): [Plain, Plain] => {
      const taken = Object.fromEntries(fields.map((field) => [field, another[field]]))
      return [one, { ...one, ...taken }]
    })
  const other = fc.property(fc.oneof(fc.tuple(plain, plain), nearlySame), ([one, two]) => {
    const sorted = ({ channels, committees, elections, listed, roles, where, types, actions }: Plain) => {
      const conditions = where?.map((condition) => JSON.stringify(Object.entries(condition).sort())) ?? null
      const parts = [channels, committees, elections, listed, roles, conditions, types, actions]
      return parts.map((values) => values && [...values].sort())
    }
    const equal = subscriptionKey(subscriptionOf(one)) === subscriptionKey(subscriptionOf(two))
    assert.equal(equal, JSON.stringify(sorted(one)) === JSON.stringify(sorted(two)))
  })
  t.doesNotThrow(() => fc.assert(other, { numRuns: 2_000 }))
})
