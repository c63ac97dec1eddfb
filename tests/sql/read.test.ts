/** Reading by the difference of two snapshots: everything once, in order, by the index. */

import pg from "pg"
import t, { type Test } from "tap"
import type { Change, RowChange } from "../../relay/change/change.ts"
import { contains, parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { createChangelog } from "../../relay/feed/changelog.ts"
import type { Session } from "../../relay/feed/log-session.ts"
import { type Database, database } from "../helpers/database.ts"
import { missing, readLog, VERSIONS } from "../helpers/log.ts"
import { openSession } from "../helpers/session.ts"
import { until } from "../helpers/wait.ts"

const WRITERS = 8
const TRANSACTIONS = 40

/** A session, with the client that only it knows, and what it is asked from now on. */
async function openWatched(t: Test, db: Database) {
  let feed: pg.Client | undefined
  const { query } = pg.Client.prototype
  const own = query as (...args: unknown[]) => unknown
  pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
    feed ??= this
    return own.apply(this, args)
  } as typeof query
  let session: Session
  try {
    session = (await openSession(t, db)).session
  } finally {
    pg.Client.prototype.query = query
  }
  const client = feed as unknown as pg.Client
  const asked: pg.QueryConfig[] = []
  client.query = ((...args: unknown[]) => {
    if (typeof args[0] === "object") asked.push(args[0] as pg.QueryConfig)
    return own.apply(client, args)
  }) as typeof query
  return { session, feed: client, asked }
}

/** Everything since a snapshot, as the feed takes it: one read, or pages if that was cut. */
async function readSince(session: Session, since: Snapshot, limit: number) {
  const page = await session.read(since, limit)
  if (!page.cut) return page
  const changes: Change[] = []
  let head = page.head
  for await (const next of session.pages(since, limit)) {
    changes.push(...next.changes)
    head = next.head
  }
  return { head, changes }
}

/** Transactions of random writes, some long, some rolled back wholly or in part. */
async function write(session: pg.Client, seed: number): Promise<void> {
  let state = seed
  const random = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return Math.floor((state / 2_147_483_648) * below)
  }
  const statement = () =>
    [
      "insert into vote (votes) values (0)",
      "insert into vote (votes) select 0 from generate_series(1, 3)",
      `update vote set votes = votes + 1 where id = ${random(60)}`,
      `update vote set votes = votes + 1 where id in (select id from vote order by id desc limit ${random(4)})`,
      `delete from vote where id = ${random(200)}`,
    ][random(5)] as string
  for (let n = 0; n < TRANSACTIONS; n++) {
    try {
      await session.query("begin")
      for (let i = 0; i <= random(4); i++) {
        await session.query(`savepoint s${i}`)
        await session.query(statement())
        if (random(3) === 0) await session.query(`rollback to s${i}`)
      }
      if (random(10) === 0) await session.query(`select pg_sleep(${0.2 + random(300) / 1_000})`)
      await session.query(random(5) === 0 ? "rollback" : "commit")
    } catch {
      await session.query("rollback")
    }
  }
}

/** Every scan in a plan. */
function scansOf(plan: Record<string, unknown>): Array<{ node: string; index: string; relation: string }> {
  const children = (plan.Plans ?? []) as Array<Record<string, unknown>>
  const own = String(plan["Node Type"])
  const scan = own.endsWith("Scan")
    ? [{ node: own, index: String(plan["Index Name"] ?? ""), relation: String(plan["Relation Name"] ?? "") }]
    : []
  return [...scan, ...children.flatMap(scansOf)]
}

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test(
      "under concurrent writers every committed change is read once, each row's in order, transactions whole",
      async (t) => {
        const db = await database(t, { version })
        const { session } = await openSession(t, db)
        let since = await session.now()
        let writing = true
        const writers = Promise.all(
          Array.from({ length: WRITERS }, async (_, n) => write(await db.session(db.writerUrl), n + 1)),
        ).finally(() => {
          writing = false
        })
        const changes: Change[] = []
        const batchOf = new Map<string, number>()
        let batches = 0
        for (let last = false; !last; ) {
          last = !writing
          const batch = await readSince(session, since, 30)
          if (!contains(batch.head.snapshot, since)) t.fail("the cursor went back")
          since = batch.head.snapshot
          batches++
          for (const { xid } of batch.changes) {
            if ((batchOf.get(xid) ?? batches) !== batches) t.fail(`transaction ${xid} lies in two batches`)
            batchOf.set(xid, batches)
          }
          changes.push(...batch.changes)
        }
        await writers
        const log = await readLog(db)
        t.ok(log.length > 200 && batches > 20, `${log.length} changes in ${batches} batches`)
        t.same(
          changes.map(({ id }) => BigInt(id)).sort((a, b) => (a < b ? -1 : 1)),
          log.map(({ seq }) => seq),
          "each once",
        )
        const rows = new Map<string, string>()
        for (const { op, before, after, id } of changes as RowChange[]) {
          const key = (before ?? after)?.row.get("id") as string
          if (rows.get(key) !== before?.text) t.fail(`${op} ${id} does not begin where the row was`)
          if (after === undefined) rows.delete(key)
          else rows.set(key, after.text)
        }
        const table = await db.query<{ id: string; votes: number }>("select id, votes from vote order by id")
        t.same(
          [...rows.values()]
            .map((text) => JSON.parse(text))
            .sort((a, b) => a.id - b.id)
            .map(({ id, votes }) => [id, votes]),
          table.map(({ id, votes }) => [Number(id), votes]),
          "the changes, applied in order, make the table",
        )
      },
    )

    t.test("a transaction that began early and commits late comes late, and whole", async (t) => {
      const db = await database(t, { version })
      const { session } = await openSession(t, db)
      const start = await session.now()
      const early = await db.session()
      await early.query("begin; insert into vote (votes) values (1)")
      await db.query("insert into vote (votes) values (2)")
      const first = await session.read(start, 10)
      t.equal(first.changes.length, 1)
      await early.query("update vote set votes = 3 where votes = 1; commit")
      const second = await session.read(first.head.snapshot, 10)
      t.same(
        second.changes.map(({ op }) => op),
        ["insert", "update"],
      )
      t.same((await session.read(second.head.snapshot, 10)).changes, [])
      t.equal((await session.read(start, 10)).changes.length, 3, "all of it from the start")
    })

    t.test("pages of any size hold what one read holds, in its order", async (t) => {
      const db = await database(t, { version })
      const { session } = await openSession(t, db)
      const since = await session.now()
      for (let n = 0; n < 7; n++)
        await db.query(
          `insert into vote (votes) select generate_series(1, ${n}); update vote set votes = votes + 1`,
        )
      const whole = await session.read(since, 1_000)
      t.equal(whole.cut, false)
      t.equal(whole.changes.length, (await readLog(db)).length)
      const { length } = whole.changes
      for (const size of [1, 7, length - 1, length, length + 1]) {
        const changes: Change[] = []
        const finals: boolean[] = []
        for await (const page of session.pages(since, size)) {
          t.ok(page.changes.length <= size)
          changes.push(...page.changes)
          finals.push(page.final)
        }
        t.same(changes, whole.changes, `pages of ${size}`)
        t.same(finals, [...Array(finals.length - 1).fill(false), true])
      }
      t.equal((await session.read(since, length)).cut, false)
      t.match(await session.read(since, length - 1), { cut: true, changes: [] })
    })

    t.test("pages are of one moment, and hold off a rotation until they are read", async (t) => {
      const db = await database(t, { version })
      const changelog = createChangelog(db.url, () => {})
      t.teardown(() => changelog.close())
      const { session } = await openSession(t, db)
      const since = await session.now()
      await db.query("insert into vote (votes) select generate_series(1, 5)")
      let seen = 0
      for await (const { changes } of session.pages(since, 2)) {
        if (seen === 0) {
          await db.query("insert into vote (votes) values (6)")
          t.equal(await changelog.rotate(0, 0), "refused")
        }
        seen += changes.length
      }
      t.equal(seen, 5)
      t.equal(await changelog.rotate(1, 1_000), "not_due")
      t.equal(await changelog.rotate(0, 0), "done")
    })

    t.test("what a rotation took away shows in the head of the same read", async (t) => {
      const db = await database(t, { version })
      const changelog = createChangelog(db.url, () => {})
      t.teardown(() => changelog.close())
      const { session } = await openSession(t, db)
      const since = await session.now()
      await db.query("insert into vote (votes) values (1)")
      t.ok(contains(since, (await session.read(since, 10)).head.horizon))
      for (let n = 0; n < 3; n++) t.equal(await changelog.rotate(0, 0), "done")
      const { head, changes } = await session.read(since, 10)
      t.same(changes, [])
      t.notOk(contains(since, head.horizon))
      t.ok(contains(head.snapshot, head.horizon))
    })

    for (const way of ["read", "pages"] as const)
      t.test(`a rotation that is under way when ${way} begins is not a silent loss`, async (t) => {
        const db = await database(t, { version })
        const changelog = createChangelog(db.url, () => {})
        t.teardown(() => changelog.close())
        const { session } = await openSession(t, db)
        const since = await session.now()
        await db.query("insert into vote (votes) values (1)")
        for (let n = 0; n < 2; n++) t.equal(await changelog.rotate(0, 0), "done")
        t.equal((await session.read(since, 10)).changes.length, 1)
        const rotating = await db.session()
        await rotating.query("begin; select relay.rotate('0 s', 0)")
        const pending = way === "read" ? session.read(since, 10) : session.pages(since, 10).next()
        await until("the read waits for the rotation", async () => {
          const rows = await db.query(
            "select from pg_stat_activity where application_name = 'commitcast feed' and datname = current_database() and wait_event_type = 'Lock'",
          )
          return rows.length === 1
        })
        await rotating.query("commit")
        const found = await pending
        const { head, changes } = "head" in found ? found : found.value
        t.same(changes, [])
        t.notOk(contains(since, head.horizon), "the head of the same read says so")
      })

    t.test(
      "both reads find their rows by the index on xid, in a log of a million rows without statistics and with them, beside a long transaction",
      async (t) => {
        const db = await database(t, { version })
        const { session, feed, asked } = await openWatched(t, db)
        await until("reads ask one table", async () => {
          const found = await session.now()
          if (found.inFlight.size === 0) await session.read(found, 1_000)
          return ["commitcast_read_0", "commitcast_read_0_lineage"].every((read) =>
            asked.some(({ name }) => name === read),
          )
        })
        const long = await db.session()
        await long.query("begin; insert into vote (votes) values (0)")
        const [{ xmax } = { xmax: 0 }] = await db.query<{ xmax: number }>(
          "select pg_snapshot_xmax(pg_current_snapshot())::text::int as xmax",
        )
        await db.query("insert into vote (votes) values (0)")
        for (const slot of [0, 1, 2])
          await db.query(`insert into relay.change_${slot} (xid, what, data)
          select (3 + g % (${xmax} - 3))::text::xid8, (select max(what) from relay.change_0), '[{"id":1}]' from generate_series(1, 333333) g
          where (3 + g % (${xmax} - 3))::text::xid8 <> all(array(select pg_snapshot_xip(pg_current_snapshot())))`)
        const writer = await db.session()
        await writer.query("begin; insert into vote (votes) values (1)")
        const since = await session.now()
        t.ok(since.inFlight.size >= 1 && since.xmin < since.xmax, "the long one is open")
        await writer.query("commit")
        await db.query("insert into vote (votes) values (2)")
        for (const statistics of ["never analysed", "analysed"]) {
          if (statistics === "analysed")
            await db.query("analyze relay.change_0; analyze relay.change_1; analyze relay.change_2")
          for (let n = 0; n < 7; n++) t.equal((await session.read(since, 1_000)).changes.length, 2)
          for await (const page of session.pages(since, 1_000)) t.equal(page.changes.length, 2)
          const xids = [...since.inFlight].join()
          const name = asked.findLast((query) => query.name !== undefined)?.name
          const declared = asked.findLast(({ text }) => text.startsWith("declare")) as pg.QueryConfig
          for (const [read, tables, query] of [
            ["read", 2, { text: `execute ${name}('${since.xmax}', 1000, '{${xids}}')` }],
            ["read of one table", 1, { text: `execute commitcast_read_0('${since.xmax}', 1000)` }],
            ["with its lineage", 1, { text: `execute commitcast_read_0_lineage('${since.xmax}', 1000)` }],
            ["pages", 6, declared],
          ] as const) {
            const result = await feed.query({
              text: `explain (analyze, buffers, format json) ${query.text}`,
              values: query.values,
            } as pg.QueryConfig)
            const [{ Plan: plan }] = JSON.parse(result.rows[0]["QUERY PLAN"])
            const scans = scansOf(plan).filter(
              ({ node, relation, index }) => /change/.test(relation + index) || node === "Seq Scan",
            )
            const what = `${read}, ${statistics}`
            t.ok(scans.length >= tables, "its tables, for each of its conditions")
            for (const { node, index, relation } of scans) {
              t.notOk(
                node === "Seq Scan" && !/^(horizon|lineage)$/.test(relation),
                `${what}: ${node} of ${relation}`,
              )
              t.match(
                index === "" && node === "Bitmap Heap Scan" ? "xid" : index || relation,
                /xid|horizon|lineage/,
                `${what}: ${node} ${index}`,
              )
            }
            const blocks = Number(plan["Shared Hit Blocks"]) + Number(plan["Shared Read Blocks"])
            t.ok(blocks < 100, `${what}: ${blocks} blocks touched`)
          }
        }
      },
    )

    t.test(
      "the read says how long a lease lasts, and tells one that is over or void from none",
      async (t) => {
        const db = await database(t, { version })
        const { session } = await openSession(t, db)
        const since = parseSnapshot("3:3:") as Snapshot
        const leaseMs = async () => (await session.read(since, 1)).head.leaseMs
        t.equal(await leaseMs(), null)
        let left = 0
        await until("a lease that is not over when it is read", async () => {
          await session.lease(2_000)
          left = (await leaseMs()) ?? 0
          return left > 0
        })
        // The end is rounded to a millisecond, and what is left of it up to one.
        t.ok(left <= 2_001, `${left} ms`)
        for (const ahead of [-1, 60_000]) {
          await db.query(
            `select setval('relay.lease', (extract(epoch from clock_timestamp()) * 1000)::bigint + ${ahead})`,
          )
          t.equal(await leaseMs(), 0)
        }
        t.equal(await session.endLease(), true)
        t.equal(await leaseMs(), null)
      },
    )

    t.test(
      "a log into which another one was restored is read no further, wherever that came from",
      async (t) => {
        const db = await database(t, { version })
        const { session } = await openSession(t, db)
        const since = parseSnapshot("3:3:") as Snapshot
        const foreign = {
          "another server": "system_identifier + 1, database, log",
          "another database": "system_identifier, 1, log",
          "another log": "system_identifier, database, 1",
        }
        for (const [from, identity] of Object.entries(foreign)) {
          for (const number of [-1, 1]) {
            await session.read(since, 1)
            await db.query(
              `insert into relay.lineage (id, number, system_identifier, database, log, timeline, postmaster_start, continues)
             select 'foreign', number + ${number}, ${identity}, timeline, postmaster_start, false from relay.lineage order by number desc limit 1`,
            )
            await t.rejects(session.read(since, 1), /another one/, from)
            await t.rejects(session.pages(since, 1).next(), /another one/, from)
            await db.query("delete from relay.lineage where id = 'foreign'")
          }
        }
      },
    )

    t.test("a read of one table, which believes the lineage, does so for a moment only", async (t) => {
      const db = await database(t, { version })
      const { session, asked } = await openWatched(t, db)
      let since = await session.now()
      const next = async () => {
        since = (await session.read(since, 10)).head.snapshot
      }
      await until("a read believes", async () => {
        await next()
        return asked.at(-1)?.name === "commitcast_read_0"
      })
      await db.query("select relay.begin_lineage()")
      await until("a read says that there is another one", () =>
        next().then(
          () => false,
          ({ message }) => /another one/.test(message),
        ),
      )
    })

    t.test("a read that believes the lineage finds at once that the log is another table", async (t) => {
      const db = await database(t, { version })
      const { session, asked } = await openWatched(t, db)
      let since = await session.now()
      await until("a read believes", async () => {
        since = (await session.read(since, 10)).head.snapshot
        return asked.at(-1)?.name === "commitcast_read_0"
      })
      const before = asked.length
      await db.query(
        "alter table relay.change_0 rename to lost; create table relay.change_0 (like relay.lost including all)",
      )
      await t.rejects(session.read(since, 10), /another one/)
      t.equal(asked.length, before + 1)
    })
  })
}
