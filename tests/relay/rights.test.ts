/**
 * Nobody is told what a plain rule forbids, and everybody all that it allows: random tokens, channels, filters and
 * changes over real sockets, live, from memory and from the log. Some columns are for certain roles.
 */

import assert from "node:assert/strict"
import fc from "fast-check"
import t, { type Test } from "tap"
import type { Client, Received } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { cursorNow, type Entry, readLog } from "../helpers/log.ts"
import { metricOf, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { settle } from "../helpers/settle.ts"
import { until } from "../helpers/wait.ts"

// ------------------------------------------------------------------------------------------- who asks for what

type Operator = "eq" | "neq" | "in" | "lt" | "lte" | "gt" | "gte"
type Where = Record<string, Partial<Record<Operator, unknown>>>

interface Person {
  user: string
  committees: number[] | undefined
  elections: number[] | undefined
  listed: string[] | undefined
  roles: string[]
  channels: string[]
  where: Where | undefined
  types: string[] | undefined
  actions: string[] | undefined
}

const CHANNELS = ["election_updates", "committee:1", "committee:2", "election:1", "election:2", "hall:1"]
const numbers = fc.integer({ min: 0, max: 3 })
const tests = fc.oneof(
  fc.record({ eq: fc.option(numbers) }),
  fc.record({ neq: fc.option(numbers) }),
  fc.record({ in: fc.uniqueArray(numbers, { minLength: 1, maxLength: 3 }) }),
  fc.record({ gte: numbers, lt: numbers.map((most) => most + 1) }),
  fc.record({ lte: numbers }),
  fc.record({ gt: numbers }),
)
const texts = fc.constantFrom("pledged", "confirmed", "a", "ä")
const textTests = fc.oneof(
  fc.record({ eq: fc.option(texts) }),
  fc.record({ neq: texts }),
  fc.record({ in: fc.uniqueArray(texts, { minLength: 1 }) }),
  fc.record({ gte: texts }),
  fc.record({ lt: texts }),
)
const conditions = {
  committee_id: tests,
  election_id: tests,
  user_id: tests,
  votes: tests,
  status: textTests,
  note: textTests,
  present: fc.constantFrom({ eq: true }, { neq: true }, { in: [false] }),
}
const where: fc.Arbitrary<Where> = fc
  .subarray(Object.keys(conditions) as Array<keyof typeof conditions>, { minLength: 1, maxLength: 2 })
  .chain((columns) => fc.record<Where>(Object.fromEntries(columns.map((name) => [name, conditions[name]]))))

const maybe = <Value>(value: fc.Arbitrary<Value>) => fc.option(value, { nil: undefined, freq: 2 })
const person: fc.Arbitrary<Person> = fc
  .record({
    user: fc.constantFrom("1", "2", "3"),
    committees: maybe(fc.subarray([1, 2, 3])),
    elections: maybe(fc.subarray([1, 2])),
    listed: maybe(fc.subarray([...CHANNELS, "user:1", "committee:3"])),
    roles: fc.subarray(["admin", "teller"]),
    channels: fc.subarray(CHANNELS, { minLength: 1, maxLength: 2 }),
    where: fc.option(where, { nil: undefined, freq: 5 }),
    types: maybe(
      fc.subarray(["voting_update", "guarantee_update", "attendance_update", "message"], { minLength: 1 }),
    ),
    actions: maybe(
      fc.subarray(["create", "update", "delete", "leave", "truncate", "bulk_load"], { minLength: 1 }),
    ),
  })
  .map((who) => {
    const allowed = who.channels.filter((channel) => mayJoin(channel, who))
    return { ...who, channels: allowed.length > 0 ? allowed : ["election_updates"] }
  })

function mayJoin(channel: string, { committees, elections, listed }: Person): boolean {
  if (channel === "election_updates") return true
  const [prefix, id] = channel.split(":")
  return (
    (listed === undefined || listed.includes(channel)) &&
    (prefix !== "committee" || committees === undefined || committees.includes(Number(id))) &&
    (prefix !== "election" || elections === undefined || elections.includes(Number(id)))
  )
}

// ------------------------------------------------------------------------------------------- what happens

const id = fc.constantFrom("1", "2", "3", "null")
const votes = numbers.map(String)
const election = fc.constantFrom("1", "2", "null")
const some = fc.constantFrom("id % 3 = 0", "id % 3 = 1", "id % 2 = 0", "true")
const table = fc.constantFrom("vote", "guarantee", "attendance")
const statement = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(election, id, votes)
      .map((row) => `insert into vote (election_id, committee_id, votes) values (${row})`),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(
        election,
        id,
        id,
        fc.constantFrom("'pledged'", "'confirmed'"),
        fc.constantFrom("'a'", "'ä'", "null"),
      )
      .map(
        (row) => `insert into guarantee (election_id, committee_id, user_id, status, note) values (${row})`,
      ),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(id, fc.boolean())
      .map((row) => `insert into attendance (committee_id, present) values (${row})`),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(table, id, some)
      .map(([name, to, those]) => `update ${name} set committee_id = ${to} where ${those}`),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(votes, some).map(([to, those]) => `update vote set votes = ${to} where ${those}`),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(id, some)
      .map(([to, those]) => `update guarantee set user_id = ${to}, note = 'a' where ${those}`),
  },
  {
    weight: 1,
    arbitrary: some.map(
      (those) => `update attendance set present = not present, id = id + 100 where ${those}`,
    ),
  },
  {
    weight: 3,
    arbitrary: fc.tuple(table, some).map(([name, those]) => `delete from ${name} where ${those}`),
  },
  { weight: 1, arbitrary: table.map((name) => `truncate ${name}`) },
  {
    weight: 1,
    arbitrary: table.map(
      (name) => `set local relay.bulk_load = 'summary'; insert into ${name} (committee_id) values (1), (2)`,
    ),
  },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(...CHANNELS)
      .map((channel) => `select relay.broadcast('${channel}', '{"n": 1}')`),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom("1", "2").map((user) => `select relay.send_to_user('${user}', '"hello"')`),
  },
)
const transactions = fc.array(fc.array(statement, { minLength: 1, maxLength: 3 }), {
  minLength: 25,
  maxLength: 40,
})

// ------------------------------------------------------------------------------------------- the plain rule

type Row = Record<string, unknown>
const SCOPES: [prefix: string, column: string][] = [
  ["committee", "committee_id"],
  ["election", "election_id"],
  ["user", "user_id"],
]

/** Joined a channel of the row, and every claim that there is allows it: four rules, of which all must hold. */
const RULES: Array<(row: Row, who: Person) => boolean> = [
  (row, who) => channelsOf(row).some((channel) => [...who.channels, `user:${who.user}`].includes(channel)),
  (row, who) => who.listed === undefined || channelsOf(row).some((channel) => who.listed?.includes(channel)),
  (row, who) => who.committees === undefined || who.committees.includes(row.committee_id as number),
  (row, who) => who.elections === undefined || who.elections.includes(row.election_id as number),
]

function channelsOf(row: Row): string[] {
  const scoped = SCOPES.filter(([, column]) => typeof row[column] === "number")
  return ["election_updates", ...scoped.map(([prefix, column]) => `${prefix}:${row[column]}`)]
}

function holds(operator: Operator, value: unknown, operand: unknown): boolean {
  if (operator === "eq") return value === operand
  if (operator === "neq") return value !== operand
  if (operator === "in") return (operand as unknown[]).includes(value)
  if (typeof value !== typeof operand) return false
  const [one, two] = [value, operand] as [number, number]
  return { lt: one < two, lte: one <= two, gt: one > two, gte: one >= two }[operator]
}

/** Which roles may see a column; all others everybody may. */
const RESTRICTED: Record<string, Record<string, string[]>> = {
  "public.guarantee": { note: ["teller"], status: ["teller", "admin"] },
  "public.vote": { votes: ["admin"] },
}
const RESTRICT = `
  select relay.track('guarantee', restricted => '{"teller": ["note", "status"], "admin": ["status"]}');
  select relay.track('vote', restricted => '{"admin": ["votes"]}')`

/** The row as if the columns that somebody may not see were not there. */
const shown = (row: Row | null, table: string | null, { roles }: Person): Row | null =>
  row &&
  Object.fromEntries(
    Object.entries(row).filter(([column]) => {
      const may = RESTRICTED[table ?? ""]?.[column]
      return may === undefined || may.some((role) => roles.includes(role))
    }),
  )

const passes = (row: Row, who: Person): boolean =>
  Object.entries(who.where ?? {}).every(([column, conditions]) =>
    Object.entries(conditions).every(([operator, operand]) =>
      holds(operator as Operator, row[column] ?? null, operand),
    ),
  )

const sees = (row: unknown, who: Person): boolean =>
  row !== null && RULES.every((rule) => rule(row as Row, who)) && passes(row as Row, who)

const wants = (who: Person, type: string, action: string | undefined): boolean =>
  (who.types === undefined || who.types.includes(type)) &&
  (who.actions === undefined || action === undefined || who.actions.includes(action))

const COLUMNS: Record<string, string[]> = {
  "public.vote": ["committee_id", "election_id", "votes", "status"],
  "public.guarantee": ["committee_id", "election_id", "user_id", "status", "note"],
  "public.attendance": ["committee_id", "election_id", "present"],
}

/** Rows that the table could hold, as far as anybody asks for them. */
function* possibleRows(name: string, who: Person): Generator<Row> {
  const asked = new Set([...SCOPES.map(([, column]) => column), ...Object.keys(who.where ?? {})])
  let rows: Row[] = [{}]
  for (const column of COLUMNS[name]?.filter((each) => asked.has(each)) ?? []) {
    const values = column.endsWith("_id")
      ? [null, 1, 2, 3]
      : [null, 0, 1, 2, 3, 4, "pledged", "confirmed", "a", "ä", true, false]
    rows = rows.flatMap((row) => values.map((value) => ({ ...row, [column]: value })))
  }
  yield* rows
}

interface Told {
  what: string
  data: unknown
  changed: string[] | undefined
  before: Row | undefined
  /** Of a table: each rule alone lets some row pass, but all together and the filter may not. */
  optional: boolean
}

const told = (entry: Entry, action: string, data?: Row | null, optional = false): Told => ({
  what: `${entry.seq} ${entry.type} ${action}`,
  data,
  changed: undefined,
  before: undefined,
  optional,
})

function ruling(entry: Entry, who: Person): Told[] {
  if (entry.op === "message") {
    const channel = entry.meta.channel as string
    const joined = [...who.channels, `user:${who.user}`].includes(channel)
    const may = joined && (who.listed === undefined || who.listed.includes(channel))
    return may && wants(who, "message", undefined) ? [told(entry, "message")] : []
  }
  if (entry.op === "truncate" || entry.op === "bulk_load") {
    const rows = [...possibleRows(entry.table ?? "", who)].map((row) => shown(row, entry.table, who) as Row)
    if (!wants(who, entry.type, entry.op) || !RULES.every((rule) => rows.some((row) => rule(row, who))))
      return []
    return [told(entry, entry.op, undefined, !rows.some((row) => sees(row, who)))]
  }
  const [old, now] = [shown(entry.old, entry.table, who), shown(entry.new, entry.table, who)]
  const [before, after] = [sees(old, who), sees(now, who)]
  if (!before && !after) return []
  const action = !before ? "create" : after ? "update" : entry.op === "delete" ? "delete" : "leave"
  if (!wants(who, entry.type, action)) return []
  if (action === "leave") return [told(entry, action)]
  if (action !== "update" || old === null || now === null) return [told(entry, action, now ?? old)]
  const changed = Object.keys(now).filter((column) => now[column] !== old[column])
  if (changed.length === 0) return []
  const values = Object.fromEntries(changed.map((column) => [column, old[column]]))
  return [{ ...told(entry, action, now), changed, before: values }]
}

/** Whether what came is what the rule says, no less and no more. */
function agrees(changes: readonly Received[], log: readonly Entry[], whoAt: (entry: Entry) => Person): void {
  const came = changes.map(({ id, type, action, data, changed, before }) => ({
    what: `${id} ${type} ${action ?? "message"}`,
    data,
    changed,
    before,
  }))
  const known = new Set(came.map(({ what }) => what))
  const expected = log
    .flatMap((entry) => ruling(entry, whoAt(entry)))
    .filter(({ what, optional }) => !optional || known.has(what))
    .map(({ optional: _, ...rest }) => rest)
  assert.deepEqual(came, expected)
}

// ------------------------------------------------------------------------------------------- over sockets

function claimsOf({ user, committees, elections, listed, roles: [role, ...roles] }: Person) {
  const claims = { sub: user, committees, elections, channels: listed, role, roles }
  return JSON.parse(JSON.stringify(claims)) as Record<string, unknown>
}

function connect(relay: TestRelay, who: Person, cursor?: string): Promise<Client> {
  const parameters = new URLSearchParams({ channels: who.channels.join() })
  if (who.where !== undefined) parameters.set("where", JSON.stringify(who.where))
  if (who.types !== undefined) parameters.set("types", who.types.join())
  if (who.actions !== undefined) parameters.set("actions", who.actions.join())
  if (cursor !== undefined) parameters.set("cursor", cursor)
  return relay.connect(claimsOf(who), `?${parameters}`)
}

/** The same person with the token and the filter of another, on the same connection. */
function become(who: Person, other: Person): Person {
  const changed = { ...other, user: who.user }
  return { ...changed, channels: who.channels.filter((channel) => mayJoin(channel, changed)) }
}

async function turnInto(client: Client, who: Person): Promise<void> {
  const { where = null, types = null, actions = null } = who
  client.send({ type: "authenticate", token: token(claimsOf(who)) })
  client.send({ type: "subscribe", where, types, actions, request: "filter" })
  await client.first("the filter", ({ type, request }) => type === "subscribed" && request === "filter")
}

async function play(t: Test, people: readonly Person[], happening: readonly string[][]): Promise<void> {
  const db = await database(t)
  await db.query("insert into election (name) values ('Second')")
  await db.query(RESTRICT)
  const relay = await startRelay(t, db)
  const run = async (some: readonly string[][]) => {
    for (const statements of some) await db.query(`begin; ${statements.join("; ")}; commit`)
  }
  const cursor = await cursorNow(db)
  const live = await Promise.all(people.map((who) => connect(relay, who)))
  const half = happening.length / 2
  await run(happening.slice(0, half))
  await settle(db, relay, ...live)
  const turned = people.map((who, index) => become(who, people[(index + 1) % people.length] as Person))
  await Promise.all(live.map((client, index) => turnInto(client, turned[index] as Person)))
  const middle = (await readLog(db)).at(-1)?.seq ?? 0n
  await run(happening.slice(half))
  await settle(db, relay, ...live)
  const log = await readLog(db)
  for (const [index, who] of people.entries()) {
    const later = turned[index] as Person
    agrees(live[index]?.changes() ?? [], log, ({ seq }) => (seq <= middle ? who : later))
  }
  const forgetful = await startRelay(t, db, { REPLAY_BUFFER_MB: "0.000001" })
  for (const [server, source] of [
    [relay, "memory"],
    [forgetful, "log"],
  ] as const) {
    const back = await Promise.all(people.map((who) => connect(server, who, cursor)))
    for (const [index, who] of people.entries()) {
      const client = back[index] as Client
      const end = ({ type, replayed }: Received) => type === "checkpoint" && replayed !== undefined
      const { replayed } = await client.first("the end of the replay", end)
      assert.equal(replayed, client.changes().length)
      agrees(client.changes(), log, () => who)
    }
    assert.equal(await metricOf(server, "relay_resume_total", `result="${source}"`), people.length)
    for (const client of back) client.socket.close()
  }
  for (const client of live) client.socket.close()
  await until("they are gone", () => relay.relay.status().hub.connections <= 2)
}

t.test("what comes is what the rule says, no less and no more", async (t) => {
  const property = fc.asyncProperty(
    fc.array(person, { minLength: 30, maxLength: 30 }),
    transactions,
    (people, happening) => play(t, people, happening),
  )
  await t.resolves(fc.assert(property, { numRuns: 4, endOnFailure: true }))
})
