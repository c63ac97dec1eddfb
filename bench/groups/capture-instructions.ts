/**
 * Capture, in instructions: what a transaction of one statement costs a writer's session beyond the same one on a table
 * with nothing on it. Instructions are the same on a machine that has other things to do, where times are not.
 */

import { chmod, mkdtemp, realpath, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { placeBinaries } from "../../cli/embedded/binaries.ts"
import { dataOwner } from "../../cli/embedded/cluster.ts"
import { run } from "../../cli/embedded/program.ts"
import { install } from "../../cli/schema/install.ts"
import { countInstructions, runSingle, type StoppedCluster } from "../harness/callgrind.ts"
import { fillTables, MAKE_TABLES, type TableName } from "../harness/capture-tables.ts"
import { openDatabase } from "../harness/database.ts"
import { figure, measured, type Outcome, type Row, withRatios } from "../harness/row.ts"
import { AbsentError } from "../harness/server.ts"
import { openSession } from "../harness/session.ts"
import type { Group } from "../harness/stage.ts"

/** What runs in a copy of the database that nothing else has run in, so that pages are as full and as old for each. */
type InCopy = <T>(work: (copy: StoppedCluster) => Promise<T>) => Promise<T>

interface Subject {
  name: string
  table: TableName
  /** Whether a relay polls, so that writers do not ring. */
  polled?: boolean
  /** Of the session, before it writes. */
  setting?: string
}

interface Kind {
  name: string
  statement(table: string, n: number): string
  /** The shorter and the longer of two sessions: how many statements. Their difference is what counts. */
  counts: [number, number]
  quickCounts: [number, number]
  /** By what that is divided, beside the number of statements: how many rows each has. */
  rows?: number
  /** Not divided: a session's first statements together. */
  together?: boolean
  subjects: Subject[]
}

const NOTHING: Subject = { name: "no trigger", table: "none" }
const LOG: Subject = { name: "a log and no more", table: "log" }
const OURS: Subject = { name: "ours", table: "ours", polled: true }
const BELL: Subject = { name: "ours, with the bell", table: "ours" }
const STATEMENT: Subject = { name: "ours, level statement", table: "statement", polled: true }
const FLAGGED: Subject = { ...OURS, name: "ours, bulk flag", setting: "set relay.bulk_load = 'on'" }

/** As a relay does that sees writers busy, and one that sees that they no longer are. */
const POLLED = "select relay.set_lease(2000)"
const QUIET = "do $$ begin while not relay.end_lease() loop perform pg_sleep(0.05); end loop; end $$"

/** More than a subject updates or deletes, each once, and enough for pages to be full. */
const ROWS = 5_000
const insert = (table: string) =>
  `insert into ${table} (election_id, committee_id, candidate_id, votes) values (1, 3, 2, 42)`
const SINGLE = { counts: [20, 120], quickCounts: [10, 40] } satisfies Partial<Kind>
const KINDS: Kind[] = [
  {
    name: "INSERT",
    statement: insert,
    ...SINGLE,
    subjects: [NOTHING, LOG, OURS, BELL, STATEMENT, FLAGGED],
  },
  {
    name: "UPDATE",
    statement: (table, n) => `update ${table} set votes = votes + 1 where id = ${n}`,
    ...SINGLE,
    subjects: [NOTHING, LOG, OURS, BELL, FLAGGED],
  },
  {
    name: "DELETE",
    statement: (table, n) => `delete from ${table} where id = ${n}`,
    ...SINGLE,
    subjects: [NOTHING, LOG, OURS, BELL, FLAGGED],
  },
  {
    name: "a row of an INSERT of 1,000",
    statement: (table) =>
      `insert into ${table} (election_id, committee_id, candidate_id, votes) select 1, 1 + g % 12, 2, 42 from generate_series(1, 1000) g`,
    counts: [2, 7],
    quickCounts: [1, 2],
    rows: 1_000,
    subjects: [NOTHING, LOG, OURS, STATEMENT, FLAGGED],
  },
  {
    name: "the first INSERT of a session",
    statement: insert,
    counts: [0, 1],
    quickCounts: [0, 1],
    subjects: [NOTHING, LOG, OURS, STATEMENT],
  },
  {
    // PostgreSQL plans a statement of a function anew five times before it keeps a plan.
    name: "the first six INSERTs of a session, together",
    statement: insert,
    counts: [0, 6],
    quickCounts: [0, 6],
    together: true,
    subjects: [NOTHING, LOG, OURS, STATEMENT],
  },
]

export const captureInstructions: Group = async function* (stage) {
  const home = await mkdtemp(join(tmpdir(), "commitcast-instructions-"))
  try {
    await chmod(home, 0o711) // as root, PostgreSQL runs as another user
    const inCopy = await prepare(join(home, "database"))
    for (const kind of KINDS) {
      stage.note(kind.name)
      yield* await measureKind(inCopy, kind, stage.choice.quick)
    }
  } finally {
    await rm(home, { recursive: true, force: true })
  }
}

/** Makes a database with the tables and the schema of the changelog, as anybody installs it, and shuts it down. */
async function prepare(dir: string): Promise<InCopy> {
  const embedded = await openDatabase(dir)
  try {
    await install(embedded.databaseUrl)
    const session = await openSession(embedded.databaseUrl)
    await session.query(MAKE_TABLES)
    await session.query(fillTables(ROWS))
    await session.end()
  } finally {
    await embedded.stop()
  }
  const dataDir = await realpath(join(dir, "data"))
  const user = await dataOwner(dataDir)
  const binDir = await placeBinaries({ log: { info() {} }, user })
  const cluster = { binDir, dataDir, user, database: new URL(embedded.databaseUrl).pathname.slice(1) }
  return async (work) => {
    const copy = `${dataDir}.copy`
    await run("cp", ["-Rp", dataDir, copy], dir) // as this user, who may give it to its owner
    try {
      return await work({ ...cluster, dataDir: copy })
    } finally {
      await rm(copy, { recursive: true, force: true })
    }
  }
}

async function measureKind(inCopy: InCopy, kind: Kind, quick: boolean): Promise<Row[]> {
  const rows: Row[] = []
  let least: number | undefined
  for (const subject of kind.subjects) {
    const outcome = await inCopy((copy) => measure(copy, kind, subject, quick)).then(
      (spent): Outcome => {
        least ??= spent
        const total = figure("instructions", spent / 1_000, "thousand")
        if (subject === NOTHING) return measured(total)
        return measured(total, figure("above no trigger", (spent - (least ?? spent)) / 1_000, "thousand"))
      },
      (error: Error): Outcome => ({
        kind: error instanceof AbsentError ? "absent" : "invalid",
        reason: error.message,
      }),
    )
    const command = "npm run bench -- capture-instructions"
    rows.push({ group: "capture-instructions", name: kind.name, subject: subject.name, command, outcome })
  }
  const others = rows.filter(({ subject }) => subject === LOG.name).map((row) => ({ to: row.subject, row }))
  return rows.map((row) => withRatios(row, ["above no trigger"], others))
}

async function measure(
  cluster: StoppedCluster,
  { statement, counts, quickCounts, rows = 1, together = false }: Kind,
  { table, polled, setting }: Subject,
  quick: boolean,
): Promise<number> {
  await runSingle(cluster, [polled ? POLLED : QUIET])
  let taken = 0
  const spend = (count: number) => {
    const statements = Array.from({ length: count }, () => ++taken).map((n) =>
      statement(`writers_${table}`, n),
    )
    return countInstructions(cluster, setting === undefined ? statements : [setting, ...statements])
  }
  const [few, many] = quick ? quickCounts : counts
  const short = await spend(few)
  return ((await spend(many)) - short) / (together ? 1 : (many - few) * rows)
}
