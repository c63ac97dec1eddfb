/** Reads of one table of the log: wherever rotations, and who wrote before them, have put a row, it is read. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import type { RowChange } from "../../relay/change/change.ts"
import { contains, type Snapshot } from "../../relay/change/cursor.ts"
import type { Session } from "../../relay/feed/log-session.ts"
import { database } from "../helpers/database.ts"
import { backendOf, missing, rotate, VERSIONS, waitsForLock } from "../helpers/log.ts"
import { openSession } from "../helpers/session.ts"

/** Reads on from a position. @returns the votes that came, and the next position. */
async function readOn(session: Session, since: Snapshot) {
  const { head, changes, cut } = await session.read(since, 1_000)
  assert.ok(!cut)
  const votes = (changes as RowChange[]).map(({ after }) => Number(after?.row.get("votes")))
  return { head, votes, since: head.snapshot }
}

for (const version of VERSIONS)
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("a transaction that wrote before a rotation and above the snapshot's end is read", async (t) => {
      const db = await database(t, { version })
      const { session } = await openSession(t, db)
      const writer = await db.session()
      await writer.query("begin; insert into vote (votes) values (1)")
      let { since } = await readOn(session, await session.now())
      await rotate(db)
      // Knows the new table, and the writer, whose xid is the next, is in no list of the snapshot if nobody followed.
      for (let n = 0; n < 3; n++) ({ since } = await readOn(session, since))
      await writer.query("commit")
      t.same((await readOn(session, since)).votes, [1])
    })

    t.test("a transaction that writes on both sides of a rotation is read whole", async (t) => {
      const db = await database(t, { version })
      const { session } = await openSession(t, db)
      let { since } = await readOn(session, await session.now())
      const writer = await db.session()
      await writer.query("begin; insert into vote (votes) values (1)")
      ;({ since } = await readOn(session, since))
      await rotate(db)
      await writer.query("insert into vote (votes) values (2)")
      ;({ since } = await readOn(session, since))
      await writer.query("commit")
      t.same((await readOn(session, since)).votes, [1, 2])
    })

    t.test("what looked where to write before a rotation, and writes after it, is read", async (t) => {
      for (const sql of [
        "insert into vote (votes) values (1)",
        "truncate vote",
        "select relay.broadcast('election_updates', '1')",
        "select relay.revoke(user_id => '7')",
        "select relay.canary('1')",
      ]) {
        const db = await database(t, { version })
        const { session } = await openSession(t, db)
        const [locker, writer] = [await db.session(), await db.session()]
        const pid = await backendOf(writer)
        let { since } = await readOn(session, await session.now())
        await locker.query("begin; lock table relay.change_0 in share mode")
        const writing = writer.query(sql)
        await waitsForLock(db, pid)
        await rotate(db)
        // Knows the new table, and where its writers begin.
        for (let n = 0; n < 3; n++) ({ since } = await readOn(session, since))
        await locker.query("commit")
        await writing
        const { changes, revocations, canaries } = await session.read(since, 10)
        t.equal(changes.length + revocations.length + canaries.length, 1, sql)
      }
    })

    t.test("a slot that goes all the way round between two reads hides nothing", async (t) => {
      const db = await database(t, { version })
      const { session } = await openSession(t, db)
      let { since } = await readOn(session, await session.now())
      for (let n = 0; n < 5; n++) ({ since } = await readOn(session, since))
      for (const votes of [1, 2]) {
        await rotate(db)
        await db.query("insert into vote (votes) values ($1)", [votes])
      }
      await rotate(db)
      const { head, votes } = await readOn(session, since)
      t.ok(contains(since, head.horizon), "nothing of it was thrown away")
      t.same(votes, [1, 2])
    })

    t.test("under any order of writes, commits, rotations and reads each vote is read once", async (t) => {
      const db = await database(t, { version })
      const { session } = await openSession(t, db)
      const writers = await Promise.all([0, 1, 2].map(() => db.session()))
      const open = writers.map(() => [] as number[])
      let next = 0
      const command = fc.oneof(
        { weight: 4, arbitrary: fc.record({ kind: fc.constant("write" as const), who: fc.nat(2) }) },
        { weight: 3, arbitrary: fc.record({ kind: fc.constant("commit" as const), who: fc.nat(2) }) },
        { weight: 2, arbitrary: fc.record({ kind: fc.constant("rotate" as const), who: fc.constant(0) }) },
        { weight: 4, arbitrary: fc.record({ kind: fc.constant("read" as const), who: fc.constant(0) }) },
      )
      const property = fc.asyncProperty(
        fc.array(command, { minLength: 5, maxLength: 40 }),
        async (commands) => {
          let { since } = await readOn(session, await session.now())
          const committed: number[] = []
          const seen: number[] = []
          const read = async () => {
            const found = await readOn(session, since)
            // A rotation threw away what was not read yet, and says so.
            if (!contains(since, found.head.horizon)) committed.splice(0, committed.length, ...seen)
            else seen.push(...found.votes)
            since = found.since
          }
          const commit = async (who: number) => {
            await writers[who]?.query("commit")
            committed.push(...(open[who]?.splice(0) ?? []))
          }
          for (const { kind, who } of commands) {
            if (kind === "read") await read()
            else if (kind === "commit") await commit(who)
            else if (kind === "write") {
              if (open[who]?.length === 0) await writers[who]?.query("begin")
              await writers[who]?.query("insert into vote (votes) values ($1)", [++next])
              open[who]?.push(next)
            } else await rotate(db).catch(() => {})
          }
          for (const who of open.keys()) await commit(who)
          await read()
          assert.deepEqual(
            seen.sort((a, b) => a - b),
            committed.sort((a, b) => a - b),
          )
        },
      )
      await t.resolves(fc.assert(property, { numRuns: 25 }))
    })
  })
