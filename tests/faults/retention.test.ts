/** Rotation under load: a reader has everything, or knows that it has not. */

import pg from "pg"
import t, { type Test } from "tap"
import type { Change, RowChange } from "../../relay/change/change.ts"
import { contains, parseCursor, type Snapshot } from "../../relay/change/cursor.ts"
import { type Changelog, createChangelog } from "../../relay/feed/changelog.ts"
import type { Head } from "../../relay/feed/head.ts"
import type { Session } from "../../relay/feed/log-session.ts"
import { ownCluster } from "../helpers/cluster.ts"
import { newSeed, type Random, random } from "../helpers/random.ts"
import { createReplica, type Faults, type Rows } from "../helpers/replica.ts"
import { until } from "../helpers/wait.ts"

const ROTATIONS = 300
/** In turn: calm rotations, which wait for load and for the quick readers, and a storm of them, which waits for nobody. */
const CALM = 54
const STORM = 6
const WRITERS = 4
const KEPT_ROWS = 40

/** What everybody here goes by, in place of time. */
interface Run {
  done: number
  refused: number
  /** An attempt is under way. */
  rotating: boolean
  /** Committed. */
  transactions: number
  /** The number of attempts that some writer and each reader have worked since. */
  written: number
  over: boolean
  failed: boolean
}

/** Waits until it holds or the run is over. */
const reached = (run: Run, what: string, condition: () => boolean) =>
  until(what, () => run.over || run.failed || condition())

const attemptsOf = (run: Run) => run.done + run.refused

/** Waits for so many attempts to rotate, from now or from an earlier number of them. */
const attempts = (run: Run, count: number, from = attemptsOf(run)) =>
  reached(run, `${count} attempts to rotate`, () => attemptsOf(run) >= from + count)

/** A transaction that fails as transactions may is rolled back and does not count. */
async function transaction(run: Run, session: pg.Client, mode: string, work: () => Promise<boolean>) {
  try {
    await session.query(`begin${mode}`)
    const commit = await work()
    await session.query(commit ? "commit" : "rollback")
    if (commit) run.transactions++
  } catch (error) {
    if (!["40001", "40P01"].includes((error as { code?: string }).code ?? "")) throw error
    await session.query("rollback")
  }
}

const statement = (chance: Random) =>
  [
    "insert into vote (votes) values (0)",
    "insert into guarantee (note) values ('one')",
    "insert into guarantee (note) select 'many' from generate_series(1, 5)",
    `update vote set votes = votes + 1 where id = ${1 + chance.below(KEPT_ROWS)}`,
    `update vote set votes = votes + 1 where id = ${1 + chance.below(KEPT_ROWS)}`,
    `delete from vote where id = (select id from vote where id > ${KEPT_ROWS} order by id limit 1 for update skip locked)`,
  ][chance.below(6)] as string

/** Short transactions: savepoints, rollbacks, REPEATABLE READ; some for each attempt to rotate. */
async function writeShort(run: Run, session: pg.Client, chance: Random): Promise<void> {
  while (!run.over && !run.failed) {
    const begun = attemptsOf(run)
    for (let n = 0; n < 3 && !run.over; n++) {
      await transaction(run, session, chance.oneIn(4) ? " isolation level repeatable read" : "", async () => {
        for (let i = 0; i <= chance.below(3); i++) {
          await session.query(`savepoint s${i}`)
          await session.query(statement(chance))
          if (chance.oneIn(4)) await session.query(`rollback to s${i}`)
        }
        return !chance.oneIn(6)
      })
    }
    run.written = Math.max(run.written, begun)
    await attempts(run, 1, begun)
  }
}

/** Transactions open across two rotations, mostly until one was refused because of them. */
async function writeLong(run: Run, session: pg.Client, chance: Random): Promise<number> {
  let across = 0
  while (!run.over && !run.failed) {
    const mode = chance.oneIn(3) ? " isolation level repeatable read" : ""
    await transaction(run, session, mode, async () => {
      const start = run.done
      await session.query(
        "insert into vote (votes) values (0); insert into guarantee (note) values ('first')",
      )
      await reached(run, "two rotations", () => run.done >= start + 2)
      await session.query("savepoint a; insert into guarantee (note) values ('never'); rollback to a")
      await session.query("insert into guarantee (note) values ('later')")
      const { refused } = run
      if (!chance.oneIn(3)) await reached(run, "a refusal", () => run.refused > refused)
      // Some end while a rotation waits for them.
      if (chance.oneIn(2)) await reached(run, "an attempt", () => run.rotating)
      if (run.done >= start + 2) across++
      return !chance.oneIn(4)
    })
    await attempts(run, 10 + chance.below(30))
  }
  return across
}

/** Transactions that write to the log only after many rotations, and so do not stop them. */
async function writeLate(run: Run, session: pg.Client, chance: Random): Promise<number> {
  let across = 0
  while (!run.over && !run.failed) {
    await transaction(run, session, "", async () => {
      const start = run.done
      const wanted = start + 4 + chance.below(8)
      await session.query("insert into committee (name) values (gen_random_uuid())")
      await reached(run, "several rotations", () => run.done >= wanted)
      await session.query("insert into guarantee (note) values ('late'); insert into vote (votes) values (0)")
      if (run.done >= start + 4) across++
      return true
    })
    await attempts(run, 10 + chance.below(20))
  }
  return across
}

/** The tables and the cursor of the same moment, as a client loads them. */
async function loadState(session: pg.Client): Promise<{ snapshot: Snapshot; rows: Rows }> {
  await session.query("begin isolation level repeatable read read only")
  const cursor = await session.query<{ it: string }>("select relay.cursor() as it")
  const rows = await session.query<[string, number]>({
    text: "select 'public.vote:' || id, votes from vote union all select 'public.guarantee:' || id, 0 from guarantee",
    rowMode: "array",
  })
  await session.query("commit")
  const parsed = parseCursor(cursor.rows[0]?.it as string)
  if (parsed === undefined) throw new Error("no cursor")
  return { snapshot: parsed.snapshot, rows: new Map(rows.rows) }
}

interface Reader {
  kind: "quick" | "slow" | "stopping" | "paging"
  reads: number
  /** The number of attempts that the last read began after. */
  readAt: number
  changes: number
  /** Times that it was too old and knew it. */
  ends: number
  /** The most rotations that it came through in one go. */
  stretch: number
  /** Rotations that were refused while it was between two pages. */
  refusedWhilePaging: number
  checks: number
  faults: Faults
}

/** Everything since; pages as a slow replay takes them. @returns undefined if the log does not hold it. */
async function take(run: Run, reader: Reader, session: Session, since: Snapshot, chance: Random) {
  const changes: Change[] = []
  let head: Head | undefined
  if (reader.kind !== "paging") {
    const page = await session.read(since, 400)
    if (!contains(since, page.head.horizon)) return undefined
    if (!page.cut) return page
  }
  const { refused } = run
  for await (const page of session.pages(since, reader.kind === "paging" ? 20 : 400)) {
    head = page.head
    if (!contains(since, head.horizon)) {
      continue
    }
    changes.push(...page.changes)
    if (reader.kind === "paging" && !page.final && chance.oneIn(10)) await attempts(run, 1)
  }
  reader.refusedWhilePaging += run.refused - refused
  if (head === undefined || !contains(since, head.horizon)) return undefined
  return { head, changes }
}

async function read(
  run: Run,
  reader: Reader,
  session: Session,
  state: pg.Client,
  chance: Random,
): Promise<void> {
  const replica = createReplica(reader.faults, { "public.vote": "votes" })
  let since: Snapshot | undefined
  let begun = 0
  for (let last = false; !last; ) {
    if (reader.kind === "quick") await attempts(run, 1, reader.readAt)
    if (reader.kind === "slow") await attempts(run, 1 + chance.below(3))
    if (reader.kind === "paging") await attempts(run, 1 + chance.below(2))
    if (reader.kind === "stopping") await attempts(run, chance.oneIn(12) ? 8 : 1)
    last = run.over || run.failed
    const readAt = attemptsOf(run)
    if (since === undefined) {
      const loaded = await loadState(state)
      replica.load(loaded.rows)
      since = loaded.snapshot
      begun = run.done
    }
    const check = last || chance.oneIn(12) ? await loadState(state) : undefined
    const taken = await take(run, reader, session, since, chance)
    reader.reads++
    reader.readAt = readAt
    if (taken === undefined) {
      reader.ends++
      since = undefined
      last = false
      continue
    }
    reader.changes += taken.changes.length
    reader.stretch = Math.max(reader.stretch, run.done - begun)
    const changes = taken.changes as RowChange[]
    if (check === undefined) {
      for (const change of changes) replica.apply(change)
    } else {
      // The tables were looked at before the log, so what is visible there makes the tables, and then comes the rest.
      const { xmax, inFlight } = check.snapshot
      const seen = ({ xid }: RowChange) => BigInt(xid) < xmax && !inFlight.has(BigInt(xid))
      for (const change of changes) if (seen(change)) replica.apply(change)
      replica.compare(check.rows)
      for (const change of changes) if (!seen(change)) replica.apply(change)
      reader.checks++
    }
    since = taken.head.snapshot
  }
}

/** Rotates as a relay does until it was done often enough. */
async function rotateOften(run: Run, changelog: Changelog, readers: Reader[], times: number): Promise<void> {
  while (run.done < times && !run.failed) {
    if (run.done % (CALM + STORM) < CALM) {
      const now = attemptsOf(run)
      await reached(
        run,
        "load and the quick readers",
        () => run.written >= now && readers.every(({ kind, readAt }) => kind !== "quick" || readAt >= now),
      )
    }
    run.rotating = true
    const result = await changelog.rotate(0, 0)
    run.rotating = false
    if (result === "done") run.done++
    if (result === "refused") run.refused++
  }
  run.over = true
}

async function torture(t: Test, url: string, seed: number): Promise<void> {
  t.comment(`seed ${seed} (COMMITCAST_TEST_SEED)`)
  const session = async () => {
    const client = new pg.Client({ connectionString: url })
    client.on("error", () => {})
    await client.connect()
    t.teardown(() => client.end())
    return client
  }
  await (await session()).query(`insert into vote (votes) select 0 from generate_series(1, ${KEPT_ROWS})`)
  const changelog = createChangelog(url, () => {})
  t.teardown(() => changelog.close())
  const run: Run = {
    done: 0,
    refused: 0,
    rotating: false,
    transactions: 0,
    written: -1,
    over: false,
    failed: false,
  }
  const kinds = ["quick", "quick", "quick", "slow", "slow", "stopping", "stopping", "paging"] as const
  const readers: Reader[] = kinds.map((kind) => ({
    kind,
    reads: 0,
    readAt: -1,
    changes: 0,
    ends: 0,
    stretch: 0,
    refusedWhilePaging: 0,
    checks: 0,
    faults: { lost: 0, repeated: 0, examples: [] },
  }))
  const sessions = await Promise.all(readers.map(() => changelog.open()))
  t.teardown(() => {
    for (const session of sessions) session.close()
  })
  let long = 0
  let late = 0
  const work = [
    ...Array.from({ length: WRITERS }, async (_, n) => writeShort(run, await session(), random(seed + n))),
    (async () => {
      long = await writeLong(run, await session(), random(seed + 10))
    })(),
    (async () => {
      late = await writeLate(run, await session(), random(seed + 11))
    })(),
    ...readers.map(async (reader, n) =>
      read(run, reader, sessions[n] as Session, await session(), random(seed + 20 + n)),
    ),
    rotateOften(run, changelog, readers, ROTATIONS),
  ].map((part) =>
    part.catch((error) => {
      run.failed = true
      throw error
    }),
  )
  const broken = (await Promise.allSettled(work)).find((result) => result.status === "rejected")
  if (broken !== undefined) throw broken.reason

  const sum = (of: (reader: Reader) => number) => readers.reduce((total, reader) => total + of(reader), 0)
  const told = (reader: Reader) =>
    `${reader.kind}: ${reader.changes} changes in ${reader.reads} reads, ${reader.checks} checks, ${reader.ends} ends, ${reader.stretch} rotations in one go`
  t.comment(
    `${run.done} rotations, ${run.refused} refused, ${run.transactions} transactions, ${long} of them long, ${late} late`,
  )
  for (const reader of readers) t.comment(told(reader))
  t.equal(run.done, ROTATIONS)
  for (const reader of readers) t.same(reader.faults, { lost: 0, repeated: 0, examples: [] }, told(reader))
  t.ok(sum(({ checks }) => checks) >= 100, "compared with the tables again and again")
  t.ok(sum(({ ends }) => ends) > 0, "some fell behind, and knew")
  const longest = Math.max(...readers.map(({ stretch }) => stretch))
  t.ok(longest >= 15, `one came through ${longest} rotations in one go`)
  t.ok(long > 0 && late > 0 && run.refused > 0, "transactions were open across rotations")
  t.ok(sum(({ refusedWhilePaging }) => refusedWhilePaging) > 0, "rotations came between two pages")
}

// On a server of its own: its open transactions would hold up the tests beside it.
t.test("hundreds of rotations under load lose nothing in silence", async (t) => {
  const cluster = await ownCluster(t, { fsync: "off", deadlock_timeout: "200ms" })
  await torture(t, cluster.url, newSeed())
})
