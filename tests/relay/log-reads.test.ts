/** Reads of the log for those who return: whoever shares one gets what it would have got alone. */

import t, { type Test } from "tap"
import {
  type Cursor,
  contains,
  parseCursor,
  parseSnapshot,
  type Snapshot,
  visible,
} from "../../relay/change/cursor.ts"
import { readSettings } from "../../relay/config.ts"
import { createChangelog } from "../../relay/feed/changelog.ts"
import type { LogPage, Rest } from "../../relay/feed/log-pages.ts"
import { createLogReads } from "../../relay/replay/log-reads.ts"
import type { Outcome, Reader } from "../../relay/replay/read-group.ts"
import { createReplayBuffer } from "../../relay/replay/replay-buffer.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { type Database, database } from "../helpers/database.ts"
import { SECRET } from "../helpers/relay.ts"

/** What a page holds at most. */
const PAGE = 1_000

async function positionNow(db: Database): Promise<Cursor> {
  await db.query("select relay.meet_lineage()")
  const [row] = await db.query<{ it: string }>("select relay.cursor() as it")
  return parseCursor(row?.it ?? "") as Cursor
}

/** Real reads of the real log. @param lineage what the feed knows. */
function openLogReads(t: Test, db: Database, lineage: () => string) {
  const changelog = createChangelog(db.url, () => {})
  const buffer = createReplayBuffer(64 * 1_048_576)
  const log = createLog(readSettings({ JWT_SECRET: SECRET }), { write() {} })
  const position = {
    head: undefined,
    get lineage() {
      return lineage()
    },
  }
  const logReads = createLogReads({ changelog, buffer, position, log, metrics: createMetrics() })
  t.teardown(async () => {
    logReads.stop()
    await changelog.close()
  })
  return { logReads, buffer }
}

interface Taker extends Reader {
  /** The pages that it was given. */
  pages: LogPage[]
  /** The ids of the changes in them that it lacked. */
  missed: string[]
}

/** Takes so many pages and is then slow. */
function taker(since: Snapshot, patience = Number.POSITIVE_INFINITY, rest?: Rest, user = "7"): Taker {
  const pages: LogPage[] = []
  const missed: string[] = []
  return {
    user,
    since,
    rest,
    pages,
    missed,
    take(page) {
      pages.push(page)
      for (const { id, xid } of page.changes) if (!visible(since, BigInt(xid))) missed.push(id)
    },
    ready: () => pages.length < patience,
    whenReady: () => (pages.length < patience ? Promise.resolve() : new Promise(() => {})),
    gone: () => false,
  }
}

const restOf = (outcome: Outcome): Rest | undefined => (outcome.kind === "cut" ? outcome.rest : undefined)

/** The ids of what the log holds that a position lacks, in order. */
async function lacking(db: Database, since: Snapshot): Promise<string[]> {
  const rows = await db.query<{ seq: string; xid: string }>(
    "select seq::text, xid::text from relay.change order by change.seq",
  )
  return rows.filter(({ xid }) => !visible(since, BigInt(xid))).map(({ seq }) => seq)
}

t.test("those who share a read get each everything since their own position", async (t) => {
  const db = await database(t)
  const { lineage } = await positionNow(db)
  const xids: bigint[] = []
  for (const votes of [1, 2, 3]) {
    const [row] = await db.query<{ xid: string }>(
      "with vote as (insert into vote (votes) values ($1)) select pg_current_xact_id()::text as xid",
      [votes],
    )
    xids.push(BigInt(row?.xid ?? 0))
  }
  const [a, b, c] = xids as [bigint, bigint, bigint]
  const positions = [
    `${c}:${c}:`,
    `${b}:${c}:${b}`,
    `${a}:${c}:${a}`,
    `${a}:${b}:${a}`,
    `${c}:${c + 1n}:${c}`,
  ]
  const snapshots = positions.map((text) => parseSnapshot(text) as Snapshot)
  t.notOk(contains(snapshots[1] as Snapshot, snapshots[2] as Snapshot), "two of them")
  t.notOk(contains(snapshots[2] as Snapshot, snapshots[1] as Snapshot), "are not comparable")
  for (const [i, first] of snapshots.entries()) {
    for (const second of snapshots.slice(i + 1)) {
      for (const pair of [
        [first, second],
        [second, first],
      ]) {
        const { logReads } = openLogReads(t, db, () => lineage)
        const takers = pair.map((since) => taker(since))
        const outcomes = await Promise.all(takers.map((one) => logReads.read(one)))
        for (const { missed, since } of takers)
          t.same(missed, await lacking(db, since), `${since.text} beside ${pair.map(({ text }) => text)}`)
        t.match(outcomes, [{ kind: "done" }, { kind: "done" }])
        t.equal(takers[0]?.pages[0], takers[1]?.pages[0], "of the same read")
      }
    }
  }
})

t.test("those who were cut at different places go on each where it was", async (t) => {
  const db = await database(t)
  const { lineage, snapshot } = await positionNow(db)
  await db.query("insert into vote (votes) select n from generate_series(1, $1) n", [5 * PAGE])
  const { logReads } = openLogReads(t, db, () => lineage)
  const all = await lacking(db, snapshot)
  const takers = [3, 1, 2].map((pages) => taker(snapshot, pages))
  const cuts = await Promise.all(takers.map((one) => logReads.read(one)))
  const rests = cuts.map(restOf)
  t.same(
    takers.map(({ missed }) => missed.length / PAGE),
    [3, 1, 2],
  )
  // What is written meanwhile belongs to another read.
  await db.query("insert into vote (votes) values (0)")
  const again = rests.map((rest) => taker(snapshot, undefined, rest))
  const outcomes = await Promise.all(again.map((one) => logReads.read(one)))
  t.match(outcomes, [{ kind: "done" }, { kind: "done" }, { kind: "done" }])
  for (const [i, { missed }] of again.entries()) {
    const whole = [...(takers[i]?.missed ?? []), ...missed]
    t.ok(whole.length === all.length && whole.every((id, n) => id === all[n]), `reader ${i} has all, once`)
  }
})

t.test("those who were cut at the same place share the next read", async (t) => {
  const db = await database(t)
  const { lineage, snapshot } = await positionNow(db)
  await db.query("insert into vote (votes) select n from generate_series(1, $1) n", [3 * PAGE])
  const { logReads } = openLogReads(t, db, () => lineage)
  const cuts = await Promise.all([1, 1].map((pages) => logReads.read(taker(snapshot, pages))))
  const again = cuts.map((outcome) => taker(snapshot, undefined, restOf(outcome)))
  await Promise.all(again.map((one) => logReads.read(one)))
  for (const { missed } of again) t.equal(missed.length, 2 * PAGE)
  t.equal(again[0]?.pages[0], again[1]?.pages[0])
})

t.test("what was read is remembered, unless the log became another one meanwhile", async (t) => {
  const db = await database(t)
  const { lineage, snapshot } = await positionNow(db)
  await db.query("insert into vote (votes) values (1)")
  const { snapshot: later } = await positionNow(db)
  for (const dies of [false, true]) {
    let known = lineage
    const { logReads, buffer } = openLogReads(t, db, () => known)
    buffer.begin(later)
    const reader = taker(snapshot)
    await logReads.read({
      ...reader,
      take(page) {
        reader.take(page)
        if (dies) known = "another"
      },
    })
    t.equal(reader.missed.length, 1)
    t.equal(buffer.covers(snapshot), !dies)
  }
})

t.test("nothing is read of a log that the feed does not know", async (t) => {
  const db = await database(t)
  const { snapshot } = await positionNow(db)
  await db.query("insert into vote (votes) values (1)")
  const { logReads, buffer } = openLogReads(t, db, () => "another")
  buffer.begin(snapshot)
  const reader = taker(snapshot)
  t.match(await logReads.read(reader), { kind: "failed" })
  t.same(reader.missed, [])
})

/** Positions with so many rows between each and the next, oldest first. */
async function positionsEvery(db: Database, rows: number, count: number): Promise<Snapshot[]> {
  const positions: Snapshot[] = []
  for (let n = 0; n < count; n++) {
    positions.push((await positionNow(db)).snapshot)
    await db.query("insert into vote (votes) select n from generate_series(1, $1) n", [rows])
  }
  return positions
}

t.test(
  "one user's many positions far back are refused or wait; another's few changes pass them",
  async (t) => {
    const db = await database(t)
    const { lineage } = await positionNow(db)
    const positions = await positionsEvery(db, 1_000, 40)
    const { snapshot: near } = await positionNow(db)
    await db.query("insert into vote (votes) values (1), (2), (3)")
    const { logReads, buffer } = openLogReads(t, db, () => lineage)
    buffer.begin((await positionNow(db)).snapshot)
    let ended = 0
    const many = positions.map(async (since) => {
      const reader = taker(since, undefined, undefined, "many")
      const outcome = await logReads.read(reader)
      ended++
      return { outcome, reader }
    })
    const one = taker(near, undefined, undefined, "one")
    t.match(await logReads.read(one), { kind: "done" })
    t.equal(one.missed.length, 3)
    t.ok(ended < 20, `${ended} of 40 went before`)
    let refused = 0
    for (const { outcome, reader } of await Promise.all(many)) {
      if (outcome.kind === "refused") refused++
      else t.equal(reader.missed.length, (await lacking(db, reader.since)).length, outcome.kind)
    }
    t.ok(refused > 0, `${refused} were refused`)
  },
)

t.test("a position before much does not take with it who came for what is after that", async (t) => {
  const db = await database(t)
  const { lineage } = await positionNow(db)
  const [far] = (await positionsEvery(db, 5_000, 1)) as [Snapshot]
  const { snapshot: near } = await positionNow(db)
  await db.query("insert into vote (votes) values (1)")
  const { logReads } = openLogReads(t, db, () => lineage)
  const [one, other] = [taker(near, undefined, undefined, "one"), taker(far, undefined, undefined, "other")]
  await Promise.all([other, one].map((reader) => logReads.read(reader)))
  t.equal(one.missed.length, 1)
  t.equal(one.pages.length, 1)
  t.equal(one.pages[0]?.changes.length, 1, "nothing but that was read for it")
  t.equal(other.missed.length, 5_001)
})

t.test("why a read failed is one line, and quotes nothing", async (t) => {
  const failures = [
    [new AggregateError([Object.assign(new Error("refused"), { code: "ECONNREFUSED" })]), "ECONNREFUSED"],
    [
      Object.assign(new Error('not a number: "hush"'), { code: "22P02" }),
      "PostgreSQL refused a value (22P02)",
    ],
  ] as const
  for (const [error, said] of failures) {
    const lines: string[] = []
    const logReads = createLogReads({
      changelog: { open: () => Promise.reject(error) },
      buffer: createReplayBuffer(1_048_576),
      position: { head: undefined, lineage: "one" },
      log: createLog(readSettings({ JWT_SECRET: SECRET }), { write: (line) => void lines.push(line) }),
      metrics: createMetrics(),
    })
    t.teardown(logReads.stop)
    t.match(await logReads.read(taker(parseSnapshot("5:5:") as Snapshot)), { kind: "failed" })
    t.match(
      lines.map((line) => JSON.parse(line)),
      [{ event: "log_read_failed", error: said }],
    )
  }
})
