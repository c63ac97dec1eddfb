/** relay.bulk_load: loads that nobody needs to see row by row. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { copyIn, missing, readLog, readOps, VERSIONS } from "../helpers/log.ts"

/** Every kind of write to a table that logs inserts by statement (vote) and to one that logs them by row (parts). */
const WRITES = (table: string) => [
  `insert into ${table} (id, votes) values (101, 1), (102, 1)`,
  `update ${table} set votes = votes + 1`,
  `insert into ${table} (id, votes) values (101, 9), (103, 9) on conflict (id) do update set votes = excluded.votes`,
  `delete from ${table} where id = 103`,
  `truncate ${table}`,
]

const PARTS = `create table parts (id int primary key, votes int) partition by range (id);
  create table part_1 partition of parts for values from (0) to (1000); select relay.track('parts')`

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    for (const table of ["vote", "parts"]) {
      t.test(`on: no write to ${table} leaves an entry or rings`, async (t) => {
        const db = await database(t, { version })
        await db.query(PARTS)
        const listener = await db.session()
        const bells: string[] = []
        listener.on("notification", ({ payload }) => bells.push(payload ?? ""))
        await listener.query("listen election_updates")
        await db.query("set relay.bulk_load = 'on'")
        for (const sql of WRITES(table)) await db.query(sql)
        await copyIn(
          await db.session(`${db.url}?options=-crelay.bulk_load%3Don`),
          `copy ${table} (id, votes) from stdin`,
          "5\t5\n",
        )
        t.same(await readOps(db), [])
        await db.query(
          "set relay.bulk_load = 'off'; update vote set votes = 77; notify election_updates, 'end'",
        )
        await listener.query("select 1")
        t.notOk(
          bells.some((bell) => bell.includes("parts")),
          "no bell",
        )
      })

      t.test(`summary: each statement on ${table} is one entry`, async (t) => {
        const db = await database(t, { version })
        await db.query(
          `${PARTS}; select relay.track('vote', level => 'statement'); set relay.bulk_load = 'summary'`,
        )
        for (const sql of WRITES(table)) await db.query(sql)
        const log = (await readLog(db)).filter(({ meta }) => meta.partition === undefined)
        const found = log.map(({ op, meta, old, new: after }) => [op, meta.op, old, after])
        t.same(found[0], ["bulk_load", "insert", null, null])
        t.same(found[1], ["bulk_load", "update", null, null])
        t.same(
          found
            .slice(2, -2)
            .map((row) => `${row[0]} ${row[1]}`)
            .sort(),
          ["bulk_load insert", "bulk_load update"],
        )
        t.same(found.slice(-2), [
          ["bulk_load", "delete", null, null],
          ["truncate", undefined, null, null],
        ])
        if (table === "vote") t.match(log[0]?.meta, { rows: 2 })
        const session = await db.session()
        await session.query("set relay.bulk_load = 'summary'")
        await copyIn(session, `copy ${table} (id, votes) from stdin`, "5\t5\n6\t6\n")
        t.match((await readLog(db)).at(-1), {
          op: "bulk_load",
          table: `public.${table}`,
          meta: { op: "insert" },
        })
      })
    }

    t.test("summary: a statement that inserts nothing leaves nothing", async (t) => {
      const db = await database(t, { version })
      await db.query(
        "select relay.track('vote', level => 'statement'); set relay.bulk_load = 'summary'; insert into vote (votes) select 1 where false",
      )
      t.same(await readOps(db), [])
    })

    t.test("'' as SET LOCAL leaves it behind, 'off' and nonsense capture as usual", async (t) => {
      const db = await database(t, { version })
      await db.query(PARTS)
      await db.query("begin; set local relay.bulk_load = 'on'; insert into vote default values; commit")
      t.same(await db.query("select current_setting('relay.bulk_load') as it"), [{ it: "" }])
      for (const [n, value] of ["", "off", "ON?", "true"].entries()) {
        await db.query(`set relay.bulk_load = '${value}'; insert into vote default values; insert into parts values (${n}, 0);
          update parts set votes = votes + 1; truncate parts; delete from vote where id = (select max(id) from vote)`)
      }
      const log = (await readLog(db)).filter(({ meta }) => meta.partition === undefined)
      t.same(
        log.map((entry) => entry.op),
        Array(4).fill(["insert", "insert", "update", "truncate", "delete"]).flat(),
      )
    })

    t.test("a flag set in a subtransaction that is rolled back is as if never set", async (t) => {
      const db = await database(t, { version })
      await db.query(`begin; savepoint s; set local relay.bulk_load = 'on'; insert into vote (votes) values (1); rollback to s;
        insert into vote (votes) values (2); commit`)
      t.same(
        (await readLog(db)).map(({ new: after }) => after?.votes),
        [2],
      )
    })

    t.test("the flag of one session is nothing to another", async (t) => {
      const db = await database(t, { version })
      const other = await db.session(db.writerUrl)
      await db.query("set relay.bulk_load = 'on'")
      await other.query("insert into vote (votes) values (2)")
      t.same(await readOps(db), ["insert"])
    })

    t.test("an ordinary role may set the flag for itself", async (t) => {
      const db = await database(t, { version })
      const writer = await db.session(db.writerUrl)
      await writer.query("set relay.bulk_load = 'on'; insert into vote (votes) values (2)")
      t.same(await readOps(db), [])
    })
  })
}
