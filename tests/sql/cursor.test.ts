/** relay.cursor() and the lineage that gives a cursor its meaning. */

import t from "tap"
import { parseCursor, parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { createChangelog } from "../../relay/feed/changelog.ts"
import { database } from "../helpers/database.ts"
import { copyIn, missing, readLog, refusal, VERSIONS } from "../helpers/log.ts"

/** Everything that a relay that starts from nothing would send. */
async function readAll(url: string): Promise<string[]> {
  const changelog = createChangelog(url, () => {})
  const session = await changelog.open()
  const { changes } = await session.read(parseSnapshot("3:3:") as Snapshot, 1_000)
  session.close()
  await changelog.close()
  return changes.map(({ op, id }) => `${op} ${id}`)
}

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("a cursor is the lineage and the snapshot, for anybody, without any right", async (t) => {
      const db = await database(t, { version })
      const [met] = await db.query<{ id: string }>("select relay.meet_lineage() as id")
      const writer = await db.session(db.writerUrl)
      const { rows } = await writer
        .query("begin; select relay.cursor() as cursor, pg_current_snapshot()::text as snapshot")
        .then(
          (r) => (r as unknown as { rows: Array<{ cursor: string; snapshot: string }> }[])[1] ?? { rows: [] },
        )
      const cursor = parseCursor(rows[0]?.cursor ?? "")
      t.equal(cursor?.lineage, met?.id)
      t.equal(cursor?.snapshot.text, rows[0]?.snapshot)
    })

    t.test("in REPEATABLE READ it is the snapshot that the transaction reads by, however long", async (t) => {
      const db = await database(t, { version })
      await db.query("select relay.meet_lineage()")
      const reader = await db.session(db.writerUrl)
      await reader.query("begin isolation level repeatable read read only")
      await reader.query("select from vote")
      await db.query("insert into vote (votes) values (1)")
      const cursor = parseCursor((await reader.query("select relay.cursor() as it")).rows[0].it)
      t.equal((await reader.query("select from vote")).rowCount, 0)
      const [row] = await db.query<{ seen: boolean }>(
        "select pg_visible_in_snapshot(xid, $1::pg_snapshot) as seen from relay.change",
        [cursor?.snapshot.text],
      )
      t.equal(row?.seen, false, "the change that the reader did not see comes after the cursor")
      t.equal(
        (await reader.query("select relay.cursor() as it")).rows[0].it,
        `${cursor?.lineage}:${cursor?.snapshot.text}`,
      )
    })

    for (const [how, work] of [
      ["plainly", "insert into vote default values"],
      ["in a savepoint", "savepoint one; insert into vote default values; release one"],
      [
        "in a savepoint that was rolled back",
        "savepoint one; insert into vote default values; rollback to one",
      ],
      [
        "in a block that failed",
        "do $$ begin insert into vote default values; perform 1 / 0; exception when others then end $$",
      ],
      ["no row, but has locked one", "select from vote for update"],
    ] as const)
      t.test(`it is refused in a transaction that has written ${how}, with the remedy`, async (t) => {
        const db = await database(t, { version })
        await db.query("select relay.meet_lineage(); insert into vote default values")
        const writer = await db.session(db.writerUrl)
        await writer.query(`begin; ${work}`)
        t.match(await refusal(writer.query("select relay.cursor()")), {
          code: "25001",
          message: /in a transaction that has written/,
          hint: /repeatable read read only/,
        })
        await writer.query("rollback; begin; select from vote")
        t.match((await writer.query("select relay.cursor() as it")).rows[0].it, /^[0-9a-f]{12}:/)
      })

    t.test("one server start is one lineage, for every session and at once", async (t) => {
      const db = await database(t, { version })
      const meet = async () =>
        (await (await db.session()).query("select relay.meet_lineage() as id")).rows[0].id
      const ids = await Promise.all(Array.from({ length: 8 }, meet))
      t.equal(new Set(ids).size, 1)
      t.match(ids[0], /^[0-9a-f]{12}$/)
      const [{ n } = { n: 0 }] = await db.query<{ n: number }>(
        "select count(*)::int as n from relay.lineage where database = (select oid from pg_database where datname = current_database())",
      )
      t.equal(n, 1)
    })

    t.test(
      "a copy of the database begins a new lineage with an empty log and sends nothing again",
      async (t) => {
        const db = await database(t, { version })
        await db.query("select relay.meet_lineage(); insert into vote (votes) values (1), (2)")
        const cursor = (await db.query<{ it: string }>("select relay.cursor() as it"))[0]?.it ?? ""
        await db.query("insert into vote (votes) values (3)")
        const superuser = await db.session(db.superuserUrl.replace(db.name, "postgres"))
        const copy = `${db.name}_copy`
        await superuser.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", [
          db.name,
        ])
        await superuser.query(`create database ${copy} template ${db.name} owner app`)
        t.teardown(async () => {
          const again = await db.session(db.superuserUrl.replace(db.name, "postgres"))
          await again.query(`drop database ${copy} with (force)`)
        })
        const url = db.url.replace(db.name, copy)
        const other = await db.session(url)
        const query = async (sql: string, values?: unknown[]) => (await other.query(sql, values)).rows
        t.equal((await readLog({ query } as never)).length, 3, "the copy holds the log as it was")
        t.same(await readAll(url), [])
        t.equal((await query("select from relay.change")).length, 0)
        const changelog = createChangelog(url, () => {})
        const session = await changelog.open()
        t.notOk(
          session.lineages.has(parseCursor(cursor)?.lineage ?? ""),
          "a cursor of the original does not hold",
        )
        session.close()
        await changelog.close()
        await query("insert into vote (votes) values (4)")
        t.equal((await readAll(url)).length, 1)
      },
    )

    t.test("rows of a log restored from elsewhere, with xids far ahead, are not read", async (t) => {
      const db = await database(t, { version })
      await db.query("select relay.meet_lineage()")
      await copyIn(
        await db.session(),
        "copy relay.change_0 (seq, xid, at, what, data) from stdin",
        `1\t9999999999\t2026-11-03 20:15:00+00\t1\t{"channel":"news","payload":1}\n`,
      )
      t.same(await readAll(db.url), [])
      await db.query("insert into vote (votes) values (1)")
      t.equal((await readAll(db.url)).length, 1)
    })
  })
}
