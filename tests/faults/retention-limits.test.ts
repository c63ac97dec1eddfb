/** What rotation must withstand: other isolation levels, open transactions, another relay, a log that is held; and what it may cost. */

import t from "tap"
import type { RowChange } from "../../relay/change/change.ts"
import { contains, type Snapshot } from "../../relay/change/cursor.ts"
import { type Database, database } from "../helpers/database.ts"
import { backendOf, missing, readLog, refusal, VERSIONS, waitsForLock } from "../helpers/log.ts"
import { startRelay } from "../helpers/relay.ts"
import { openSession } from "../helpers/session.ts"
import { until } from "../helpers/wait.ts"

const votesOf = (changes: readonly unknown[]) =>
  (changes as RowChange[]).map(({ after }) => after?.row.get("votes"))

/** Lets a rotation wait for longer than any test needs, so that one can look at it. */
const patient = (db: Database) =>
  db.query(
    "alter function relay.rotate(interval, bigint) set lock_timeout = '20s'; alter function relay.advance_slot(smallint) set lock_timeout = '20s'",
  )

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test(
      "a transaction that is open across many rotations cuts nobody off, and what it writes at last comes",
      async (t) => {
        const db = await database(t, { version })
        const { changelog, session } = await openSession(t, db)
        const idle = await db.session()
        await idle.query("begin; insert into committee (name) values ('not tracked')")
        const { rows } = await idle.query<{ xid: string }>("select pg_current_xact_id()::text as xid")
        // Neighbours' transactions that ended in the moment before a rotation may cut off a cursor that has them in flight.
        const disturbed = ({ inFlight }: Snapshot, horizon: Snapshot) =>
          [...inFlight].some((xid) => xid !== BigInt(rows[0]?.xid ?? 0) && xid < horizon.xmax)
        let since = await session.now()
        for (let n = 0; n < 7; n++) {
          await db.query("insert into vote (votes) values ($1)", [n])
          const page = await session.read(since, 10)
          const { horizon } = page.head
          t.ok(contains(since, horizon) || disturbed(since, horizon), `after ${n} rotations`)
          t.same(votesOf(page.changes), [`${n}`])
          since = page.head.snapshot
          t.equal(await changelog.rotate(0, 0), "done")
        }
        await idle.query("insert into vote (votes) values (99); commit")
        const page = await session.read(since, 10)
        t.ok(contains(since, page.head.horizon) || disturbed(since, page.head.horizon))
        t.same(votesOf(page.changes), ["99"])
      },
    )

    t.test("a transaction that was open when the log began is thrown away for all to see", async (t) => {
      const db = await database(t, { version })
      const { changelog, session } = await openSession(t, db)
      const early = await db.session()
      await early.query("begin; select pg_current_xact_id()")
      // As install and a new lineage do.
      await (await db.session(db.superuserUrl)).query(
        "select pg_current_xact_id(); update relay.horizon set h = pg_current_snapshot()",
      )
      const since = await session.now()
      await early.query("insert into vote (votes) values (1); commit")
      for (let n = 0; n < 3; n++) await changelog.rotate(0, 0)
      t.same(await readLog(db), [])
      t.notOk(contains(since, (await session.read(since, 10)).head.horizon))
    })

    t.test("where REPEATABLE READ is the default, the relay rotates in READ COMMITTED", async (t) => {
      const db = await database(t, { version })
      await db.query(`alter database ${db.name} set default_transaction_isolation = 'repeatable read'`)
      const { changelog } = await openSession(t, db)
      t.equal(await changelog.rotate(0, 0), "done")
      const other = await db.session()
      for (const level of ["repeatable read", "serializable"]) {
        await other.query(`begin isolation level ${level}`)
        t.match(await refusal(other.query("select relay.rotate('0 s', 0)")), { code: "25001" })
        await other.query("rollback")
      }
    })

    t.test("what is committed while rotate waits for the lock is thrown away for all to see", async (t) => {
      const db = await database(t, { version })
      const { changelog, session } = await openSession(t, db)
      await patient(db)
      const writer = await db.session()
      await writer.query("begin; insert into vote (votes) values (1)")
      t.equal(await changelog.rotate(0, 0), "done")
      t.equal(await changelog.rotate(0, 0), "done")
      const since = await session.now()
      const rotator = await db.session()
      const pid = await backendOf(rotator)
      const rotation = rotator.query("select relay.rotate('0 s', 0)")
      await waitsForLock(db, pid)
      await writer.query("commit")
      await rotation
      const { head, changes } = await session.read(since, 10)
      t.same(changes, [])
      t.notOk(contains(since, head.horizon), "and not in silence")
    })

    t.test("a table of the log that another relay has put to use meanwhile is not emptied", async (t) => {
      const db = await database(t, { version })
      await patient(db)
      t.equal((await db.query("select relay.rotate('0 s', 0) as slot"))[0]?.slot, 1)
      // Late: it has seen which table was filled, and nothing else yet.
      const holder = await db.session()
      await holder.query("begin; lock table relay.horizon in access exclusive mode")
      const late = await db.session()
      const pid = await backendOf(late)
      const rotation = late.query<{ slot: number | null }>("select relay.rotate('0 s', 0) as slot")
      await waitsForLock(db, pid)
      await holder.query(
        "select relay.advance_slot(1::smallint); insert into vote (votes) values (1); commit",
      )
      t.same((await rotation).rows, [{ slot: null }])
      t.equal((await readLog(db)).length, 1)
    })

    t.test("a table of the log is not put to use while another relay empties it", async (t) => {
      const db = await database(t, { version })
      await patient(db)
      t.equal((await db.query("select relay.rotate('0 s', 0) as slot"))[0]?.slot, 1)
      const holder = await db.session()
      await holder.query("begin; lock table relay.change_1 in access share mode")
      const [late, first] = [await db.session(), await db.session()]
      const [latePid, firstPid] = [await backendOf(late), await backendOf(first)]
      const rotation = late.query<{ slot: number | null }>("select relay.rotate('0 s', 0) as slot")
      await waitsForLock(db, latePid)
      const advance = first.query("select relay.advance_slot(1::smallint)")
      await waitsForLock(db, firstPid)
      await db.query("insert into vote (votes) values (1)")
      await holder.query("commit")
      t.same((await rotation).rows, [{ slot: 1 }])
      await advance
      await db.query("insert into vote (votes) values (2)")
      t.equal((await readLog(db)).length, 2)
    })

    t.test("a dump, a reader or a writer that holds the log is not waited for by others", async (t) => {
      const db = await database(t, { version })
      const { changelog, session } = await openSession(t, db)
      const writer = await db.session(db.writerUrl)
      await writer.query("set lock_timeout = '5s'")
      const holders: Array<[string, string]> = [
        ["a dump", "begin isolation level repeatable read; lock table relay.change in access share mode"],
        ["a reader", "begin isolation level repeatable read; select count(*) from relay.change"],
        ["a writer", "begin; insert into vote (votes) values (0)"],
      ]
      for (const [who, sql] of holders) {
        const holder = await db.session()
        await holder.query(sql)
        if (who === "a writer") for (let n = 0; n < 2; n++) t.equal(await changelog.rotate(0, 0), "done")
        let since = await session.now()
        for (let n = 0; n < 10; n++) {
          const rotation = changelog.rotate(0, 0)
          await writer.query("insert into vote (votes) values ($1)", [n])
          const page = await session.read(since, 100)
          t.same(votesOf(page.changes), [`${n}`])
          since = page.head.snapshot
          t.equal(await rotation, "refused", who)
        }
        if (who === "a dump") {
          // Without its limit, the feed would stand in the queue behind it.
          await patient(db)
          const rotator = await db.session()
          const pid = await backendOf(rotator)
          const rotation = rotator.query("select relay.rotate('0 s', 0)")
          await waitsForLock(db, pid)
          const reader = await db.session()
          const behind = await backendOf(reader)
          const read = reader.query("select count(*) from relay.change")
          await waitsForLock(db, behind)
          await holder.query("commit")
          await Promise.all([rotation, read])
          await db.query("alter function relay.rotate(interval, bigint) set lock_timeout = '30ms'")
        } else await holder.query("commit")
        await until(`done after ${who}`, async () => (await changelog.rotate(0, 0)) === "done")
      }
    })

    t.test(
      "a session's first row-level inserts lock the table of the log that they fill and no other",
      async (t) => {
        const db = await database(t, { version })
        const writer = await db.session()
        await writer.query("begin")
        for (let n = 0; n < 12; n++) await writer.query("insert into vote (votes) values (1)")
        const { rows } = await writer.query(
          "select relation::regclass::text as it from pg_locks where pid = pg_backend_pid() and relation::regclass::text ~ '^relay.change_[0-9]$'",
        )
        t.same(rows, [{ it: "relay.change_0" }])
        await writer.query("commit")
      },
    )

    t.test("a long run of rotations leaves no dead rows, and the log no larger than at first", async (t) => {
      const db = await database(t, { version })
      const { changelog } = await openSession(t, db)
      // What keeps every old version of the horizon alive.
      const old = await db.session()
      await old.query("begin isolation level repeatable read; select 1")
      const size = async (what: string) =>
        Number(
          (
            await db.query<{ it: string }>(
              `select sum(pg_total_relation_size(oid)) as it from pg_class where oid = any($1::regclass[])`,
              [what.split(" ")],
            )
          )[0]?.it,
        )
      const log = "relay.change_0 relay.change_1 relay.change_2"
      const sizes: number[] = []
      for (let n = 0; n < 40; n++) {
        await db.query("insert into vote (votes) select 0 from generate_series(1, 100)")
        await db.query("begin; insert into vote (votes) select 1 from generate_series(1, 50); rollback")
        await until("rotated", async () => (await changelog.rotate(0, 0)) === "done")
        sizes.push(await size(log))
      }
      const bound = Math.max(...sizes.slice(0, 6))
      // A page or two come and go with the maps of free space.
      t.ok(Math.max(...sizes) <= 1.25 * bound, `no more than at first, ${bound} bytes: ${sizes.join(" ")}`)
      const small = await size("relay.horizon relay.lineage relay.unbroken relay.migration")
      t.ok(small < 300_000, `${small} bytes beside the log`)
      const deleted = await db.query(
        "select relname, n_tup_del::int from pg_stat_all_tables where relid = any($1::regclass[]) and n_tup_del > 0",
        [log.split(" ")],
      )
      t.same(deleted, [])
      await old.query("commit")
    })
  })
}

t.test("a relay rotates by age and by size, and counts it", async (t) => {
  for (const [setting, value] of [
    ["RETENTION_HOURS", "0.000001"],
    ["RETENTION_MB", "0.01"],
  ] as const) {
    const db = await database(t)
    const counted = async (settings: Record<string, string>) => {
      const relay = await startRelay(t, db, settings)
      let text = ""
      await until("the chores", async () => {
        text = await (await fetch(`${relay.url}/metrics`)).text()
        return settings[setting] === undefined || /relay_rotations_total\{result="done"\} 1\b/.test(text)
      })
      await relay.stop()
      return text
    }
    await db.query("insert into vote (votes) select 0 from generate_series(1, 500)")
    t.match(await counted({}), /relay_rotations_total\{result="done"\} 0\b/, "not due by default")
    t.match(await counted({ [setting]: value }), /relay_rotations_total\{result="done"\} 1\b/, setting)
    const slot = await db.query("select relay.slot()::int as it")
    t.same(slot, [{ it: 1 }])
  }
})
