/**
 * Writers: what the capture takes from those who write. Commits a second of the same statement on the same table, with
 * nothing on it, with a NOTIFY that carries the row, with a trigger that only logs, and with ours, in turns, because a
 * machine has better and worse moments.
 */

import { fillTables, MAKE_TABLES, type TableName } from "../harness/capture-tables.ts"
import { pgbench } from "../harness/pgbench.ts"
import { figure, type Outcome, type Ratio, type Row } from "../harness/row.ts"
import { AbsentError, type Server } from "../harness/server.ts"
import type { Group, Stage } from "../harness/stage.ts"
import { watchWaits } from "../harness/waits.ts"

const SECONDS = 2
const QUICK_SECONDS = 1
const ROUNDS = 5
const WARM_SECONDS = 2

interface Case {
  subject: string
  table: TableName
  settings?: Record<string, string>
  /** The relay is held still, as if it cost nothing; the writers go on in the belief that it polls. */
  unread?: boolean
}

const NOTHING: Case = { subject: "no trigger", table: "none" }
const OURS: Case = { subject: "ours", table: "ours" }
const UNREAD: Case = { subject: "ours, nobody reading", table: "ours", unread: true }
const STATEMENT: Case = { subject: "ours, level statement", table: "statement" }
const FLAGGED: Case = { subject: "ours, bulk flag", table: "ours", settings: { "relay.bulk_load": "on" } }
const LOG: Case = { subject: "a log and no more", table: "log" }
const NOTIFY: Case = { subject: "plain NOTIFY", table: "notify" }
/** Enough for the fastest to delete. */
const ROWS = { insert: 10_000, update: 10_000, many: 10_000, delete: 180_000 }

interface Kind {
  name: string
  statement: keyof typeof ROWS
  cases: Case[]
}

const KINDS: Kind[] = [
  {
    name: "INSERT",
    statement: "insert",
    cases: [
      NOTHING,
      LOG,
      OURS,
      UNREAD,
      { subject: "ours, no bell", table: "ours", settings: { "relay.bell": "off" } },
      FLAGGED,
      NOTIFY,
    ],
  },
  { name: "UPDATE", statement: "update", cases: [NOTHING, LOG, OURS, UNREAD, FLAGGED, NOTIFY] },
  { name: "DELETE", statement: "delete", cases: [NOTHING, LOG, OURS, UNREAD, FLAGGED, NOTIFY] },
]
/** A thousand rows a statement. */
const MANY: Kind = {
  name: "INSERT of 1,000 rows",
  statement: "many",
  cases: [NOTHING, LOG, OURS, UNREAD, STATEMENT, FLAGGED],
}

export const writers: Group = async function* (stage) {
  const { clients = [1, 16, 64] } = stage.choice
  const session = await stage.session()
  // A relay is there in all cases, without clients: it captures nothing of the tables that are not its own.
  const relay = await stage.server("ours")
  await session.query(MAKE_TABLES)
  const runs = [
    ...clients.flatMap((count) => KINDS.map((kind) => ({ kind, count }))),
    ...(stage.choice.clients === undefined ? [{ kind: MANY, count: 1 }] : []),
  ]
  for (const { kind, count } of runs) {
    stage.note(`${kind.name}, ${count} writers`)
    yield* await measureKind(stage, relay, kind, count)
  }
  await stage.clear()
}

async function measureKind(stage: Stage, relay: Server, kind: Kind, count: number): Promise<Row[]> {
  const session = await stage.session()
  await session.query(fillTables(ROWS[kind.statement]))
  const found = new Map<Case, number[]>(kind.cases.map((each) => [each, []]))
  let failure: Outcome | undefined
  try {
    for (let round = 0; round < (stage.choice.quick ? 1 : ROUNDS); round++)
      for (const each of kind.cases) {
        if (kind.statement === "delete") await session.query(fillTables(ROWS.delete, [each.table]))
        await settle(stage)
        found.get(each)?.push(await measureCase(stage, relay, kind, each, count))
      }
    if (!relay.alive()) failure = { kind: "invalid", reason: "the relay died" }
  } catch (error) {
    const kind = error instanceof AbsentError ? "absent" : "invalid"
    failure = { kind, reason: (error as Error).message }
  }
  await session.end()
  const many = kind === MANY
  return kind.cases.map((each) => ({
    group: "writers",
    name: `${kind.name}, ${count} ${count === 1 ? "writer" : "writers"}`,
    subject: each.subject,
    command: many ? "npm run bench -- writers" : `npm run bench -- writers --clients ${count}`,
    outcome: failure ?? outcomeOf(found, each, many ? "statements" : "commits"),
  }))
}

/** @returns commits a second. */
async function measureCase(
  stage: Stage,
  relay: Server,
  { statement }: Kind,
  { subject, table, settings, unread }: Case,
  count: number,
): Promise<number> {
  const session = await stage.session()
  const watching = stage.choice.waits ? await stage.session() : undefined
  const watch = watching && watchWaits(watching)
  if (unread) {
    await session.query("select relay.set_lease(2000)")
    process.kill(relay.pid, "SIGSTOP")
  }
  try {
    return await pgbench({
      databaseUrl: stage.databaseUrl,
      script: `${statement}-${table}`,
      writers: count,
      settings,
      warmSeconds: WARM_SECONDS,
      seconds: stage.choice.quick ? QUICK_SECONDS : SECONDS,
    })
  } finally {
    if (unread) process.kill(relay.pid, "SIGCONT")
    const waits = await watch?.stop()
    if (waits !== undefined) stage.note(`  ${subject}: ${waits}`)
    // A run has more cases than the server has connections.
    await Promise.all([session.end(), watching?.end()])
  }
}

/** Waits until no lease is in force any more, so that each case begins with a quiet bell and a fresh checkpoint. */
async function settle(stage: Stage): Promise<void> {
  const session = await stage.session()
  for (;;) {
    const { rows } = await session.query("select relay.end_lease() as it")
    if (rows[0].it === true) break
    await session.query("select pg_sleep(0.05)")
  }
  await session.query("checkpoint")
  await session.end()
}

/** The middle of the rounds, and the middle of how it stood to the others in each of them. */
function outcomeOf(found: Map<Case, number[]>, each: Case, name: string): Outcome {
  const mine = found.get(each) ?? []
  const ratios = [LOG, NOTHING, UNREAD, NOTIFY].flatMap((other): Ratio[] => {
    const theirs = found.get(other)
    if (theirs === undefined || other === each || (other === UNREAD && each !== OURS)) return []
    const value = median(mine.map((rate, round) => rate / (theirs[round] as number)))
    return [{ figure: name, to: other.subject, value }]
  })
  return { kind: "measured", figures: [figure(name, median(mine), "/s")], ratios }
}

function median(sample: number[]): number {
  const sorted = [...sample].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] as number
}
