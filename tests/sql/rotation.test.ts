/** Rotation: what it keeps, what it throws away and how that shows, and that nobody waits for it. */

import fc from "fast-check"
import t from "tap"
import { contains, parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { type Database, database } from "../helpers/database.ts"
import { backendOf, missing, readLog, refusal, rotate, VERSIONS } from "../helpers/log.ts"

const snapshot = async (db: Database) =>
  (await db.query<{ it: string }>("select pg_current_snapshot()::text as it"))[0]?.it as string

/**
 * The present snapshot, in which of all transactions this one at most is in flight. Those of other databases write nothing
 * here, so that it loses nothing to take them for ended; and each of them would rightly make it too old later.
 */
async function ownSnapshot(db: Database, open?: string): Promise<string> {
  const [, xmax] = (await snapshot(db)).split(":")
  return `${open ?? xmax}:${xmax}:${open ?? ""}`
}

const horizonOf = async (db: Database) =>
  parseSnapshot((await db.query<{ h: string }>("select h::text from relay.horizon"))[0]?.h ?? "") as Snapshot

/** Whether a cursor may have lost changes by rotation. */
const tooOld = async (db: Database, cursor: string) =>
  (
    await db.query<{ it: boolean }>(
      "select not relay.contains($1::pg_snapshot, h) as it from relay.horizon",
      [cursor],
    )
  )[0]?.it

const slotsOf = async (db: Database) =>
  (
    await db.query<{ slot: number; votes: number }>(
      `${[0, 1, 2]
        .map(
          (slot) =>
            `select ${slot} as slot, coalesce(data::json #>> '{votes}', data::json #>> '{0,votes}')::int as votes, seq from relay.change_${slot}`,
        )
        .join(" union all ")} order by seq`,
    )
  ).map(({ slot, votes }) => [slot, votes])

/** A snapshot as PostgreSQL could have made it, over few xids so that two of them meet. */
const anySnapshot: fc.Arbitrary<string> = fc
  .tuple(
    fc.integer({ min: 3, max: 12 }),
    fc.integer({ min: 0, max: 8 }),
    fc.integer({ min: 0, max: 255 }),
    fc.constantFrom(0n, 4_294_967_300n),
  )
  .map(([xmin, length, bits, base]) => {
    const inFlight = Array.from({ length }, (_, n) => xmin + n).filter((_, n) => (bits >> n) & 1)
    const first = inFlight[0] ?? xmin + length
    return `${base + BigInt(first)}:${base + BigInt(xmin + length)}:${inFlight.map((xid) => base + BigInt(xid)).join(",")}`
  })

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("three rotations keep the last two partitions and then throw away the oldest", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote (votes) values (0)")
      t.equal(await rotate(db), 1)
      await db.query("insert into vote (votes) values (1)")
      t.same(await slotsOf(db), [
        [0, 0],
        [1, 1],
      ])
      t.equal(await rotate(db), 2)
      await db.query("insert into vote (votes) values (2)")
      t.equal((await readLog(db)).length, 3)
      t.equal(await rotate(db), 0)
      await db.query("insert into vote (votes) values (3)")
      t.same(await slotsOf(db), [
        [1, 1],
        [2, 2],
        [0, 3],
      ])
    })

    t.test("sessions with a warm plan write to the new partition at once", async (t) => {
      const db = await database(t, { version })
      const writer = await db.session(db.writerUrl)
      for (let n = 0; n < 10; n++) await writer.query("insert into vote (votes) values (0)")
      await writer.query("begin; insert into vote (votes) values (0)")
      await rotate(db)
      await writer.query("insert into vote (votes) values (1); commit")
      t.same((await slotsOf(db)).slice(-2), [
        [0, 0],
        [1, 1],
      ])
    })

    t.test(
      "a cursor older than the horizon is found out, one that saw all that was thrown away is kept",
      async (t) => {
        const db = await database(t, { version })
        const beginning = await snapshot(db)
        await db.query("insert into vote (votes) values (0)")
        const open = await db.session()
        await open.query("begin; insert into vote (votes) values (1)")
        const during = await snapshot(db)
        await open.query("commit")
        const after = await ownSnapshot(db)
        for (let n = 0; n < 2; n++) {
          await rotate(db)
          for (const cursor of [beginning, during, after])
            t.equal(await tooOld(db, cursor), false, "nothing thrown away yet")
        }
        await rotate(db)
        t.equal(await tooOld(db, beginning), true)
        t.equal(await tooOld(db, during), true, "a transaction that was in flight is gone")
        t.equal(await tooOld(db, after), false)
        t.equal(await tooOld(db, await snapshot(db)), false)
      },
    )

    t.test(
      "a transaction that wrote nothing of what is thrown away cuts nobody off by being open",
      async (t) => {
        const db = await database(t, { version })
        const open = await db.session()
        await open.query("begin")
        const { rows } = await open.query<{ xid: string }>("select pg_current_xact_id()::text as xid")
        await db.query("insert into vote (votes) values (0)")
        const cursor = await ownSnapshot(db, rows[0]?.xid)
        for (let n = 0; n < 3; n++) await rotate(db)
        t.equal(await tooOld(db, cursor), false, "what it will write is still to come")
        t.equal(await tooOld(db, await snapshot(db)), false)
        await open.query("insert into vote (votes) values (1); commit")
        t.equal(await tooOld(db, cursor), false)
        for (let n = 0; n < 3; n++) await rotate(db)
        t.equal(await tooOld(db, cursor), true, "what it wrote is gone, although nothing younger is")
        t.equal(await tooOld(db, await snapshot(db)), false)
      },
    )

    t.test("rotating empty partitions does not cut anybody off", async (t) => {
      const db = await database(t, { version })
      const cursor = await snapshot(db)
      await db.query("create table unrelated ()")
      for (let n = 0; n < 7; n++) await rotate(db)
      t.equal(await tooOld(db, cursor), false)
    })

    t.test("the horizon never goes back", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote (votes) values (0)")
      for (let n = 0; n < 3; n++) await rotate(db)
      const before = await horizonOf(db)
      await db.query(
        `insert into relay.change_1 (xid, what, data) values ('3', 1, '{"channel": "news", "payload": 1}')`,
      )
      for (let n = 0; n < 3; n++) await rotate(db)
      // A neighbour's transaction that was in flight may have ended, which only adds to it.
      t.ok(contains(await horizonOf(db), before))
    })

    t.test("foreign xids of a restored log do not move the horizon into the future", async (t) => {
      const db = await database(t, { version })
      await db.query(
        `insert into relay.change_1 (xid, what, data) values ('9999999999', 1, '{"channel": "news", "payload": 1}')`,
      )
      await rotate(db)
      t.equal(await tooOld(db, await snapshot(db)), false)
      t.same(await readLog(db), [])
    })

    t.test("it is due by age or by size, and only one relay does it", async (t) => {
      const db = await database(t, { version })
      const due = async (age: string, bytes: number) =>
        (
          await db.query<{ slot: number | null }>("select relay.rotate($1::interval, $2) as slot", [
            age,
            bytes,
          ])
        )[0]?.slot
      t.equal(await due("1 hour", 1_000_000_000), null)
      await db.query(
        "insert into guarantee (note) select string_agg(md5(n::text || g::text), '') from generate_series(1, 100) g, generate_series(1, 100) n group by g",
      )
      t.equal(await due("1 hour", 100_000), 1)
      await db.query("update relay.horizon set rotated_at = now() - interval '2 hours'")
      t.equal(await due("1 hour", 1_000_000_000), 1, "not advanced yet, so the same again")
      const other = await db.session()
      await other.query("begin; select relay.rotate('0 s', 0)")
      t.equal(await due("0 s", 0), null, "while another one rotates")
      await other.query("commit")
    })

    t.test("advance_slot takes the next slot only, so that a late call does no harm", async (t) => {
      const db = await database(t, { version })
      for (const slot of [0, 2, 7, -1]) {
        await db.query("select relay.advance_slot($1::smallint)", [slot])
        t.same(await db.query("select relay.slot()::int as it"), [{ it: 0 }])
      }
    })

    t.test(
      "while a transaction holds the next partition it is refused by its time limit, and writers do not wait",
      async (t) => {
        const db = await database(t, { version })
        const reader = await db.session()
        await reader.query("begin; select from relay.change_1")
        const writer = await db.session(db.writerUrl)
        let writes = 0
        let rotating = true
        const writing = (async () => {
          while (rotating) {
            await writer.query("insert into vote (votes) values (1)")
            writes++
          }
        })()
        for (let n = 0; n < 5; n++)
          t.match(await refusal(db.query("select relay.rotate('0 s', 0)")), { code: "55P03" })
        rotating = false
        await writing
        t.ok(writes > 0)
        const limit = `select 'lock_timeout=30ms' = any(proconfig) as it from pg_proc where oid = 'relay.rotate(interval, bigint)'::regprocedure`
        t.same(await db.query(limit), [{ it: true }])
        await reader.query("commit")
        t.equal(await rotate(db), 1)
      },
    )

    t.test("a refused rotation leaves log, slot and horizon as they were", async (t) => {
      const db = await database(t, { version })
      await db.query("insert into vote (votes) values (0)")
      await rotate(db)
      await rotate(db)
      const state = () =>
        db.query(
          "select h::text, rotated_at, relay.slot() as slot, (select count(*) from relay.change) as n from relay.horizon",
        )
      const before = await state()
      const reader = await db.session()
      await reader.query("begin; select from relay.change_0")
      t.match(await refusal(db.query("select relay.rotate('0 s', 0)")), { code: "55P03" })
      t.same(await state(), before)
    })

    t.test(
      "a writer that wrote to the current partition before does not stop the rotation to the next",
      async (t) => {
        const db = await database(t, { version })
        const writer = await db.session()
        await writer.query("begin; insert into vote (votes) values (0)")
        t.ok((await backendOf(writer)) > 0)
        t.equal(await rotate(db), 1)
        await writer.query("commit")
      },
    )

    t.test("relay.contains and contains() of the relay agree on any two snapshots", async (t) => {
      const db = await database(t, { version })
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(anySnapshot, anySnapshot), { minLength: 20, maxLength: 20 }),
          async (pairs) => {
            const rows = await db.query<{ it: boolean }>(
              "select relay.contains(a::pg_snapshot, b::pg_snapshot) as it from unnest($1::text[], $2::text[]) with ordinality p(a, b, n) order by n",
              [pairs.map(([a]) => a), pairs.map(([, b]) => b)],
            )
            for (const [n, [a, b]] of pairs.entries()) {
              const expected = contains(parseSnapshot(a) as Snapshot, parseSnapshot(b) as Snapshot)
              if (rows[n]?.it !== expected)
                throw new Error(`contains(${a}, ${b}) is ${expected} here and not in SQL`)
            }
          },
        ),
        { numRuns: 50 },
      )
    })
  })
}
