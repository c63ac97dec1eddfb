/** Partitioned tables, whose rows come in through the root, straight into a partition, and move between them. */

import t from "tap"
import { type Database, database } from "../helpers/database.ts"
import { copyIn, lastEntry, missing, readLog, readOps, VERSIONS, writtenText } from "../helpers/log.ts"

const ROOT = `create table sale (region text, id int, secret text, n int default 0, primary key (id, region)) partition by list (region);
  create table sale_north partition of sale for values in ('north');
  create table sale_south partition of sale for values in ('south') partition by range (id);
  create table sale_south_1 partition of sale_south for values from (0) to (100);
  select relay.track('sale', exclude => array['secret'])`

/** A partition whose columns lie in another order, with holes. */
const ODD = `create table sale_odd (n int default 0, gone int, secret text, id int not null, gone2 text, region text not null);
  alter table sale_odd drop gone, drop gone2; alter table sale_odd add primary key (id, region);
  alter table sale attach partition sale_odd for values in ('odd')`

const problemOf = async (db: Database) =>
  (
    await db.query<{ problem: string | null }>("select problem from relay.tracked where name = 'public.sale'")
  )[0]?.problem

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("rows are logged under the root's name, whichever way they come", async (t) => {
      const db = await database(t, { version })
      await db.query(ROOT)
      await db.query(
        "insert into sale values ('north', 1, 'hush'), ('south', 2, 'hush'); insert into sale_south_1 values ('south', 3, 'hush')",
      )
      await copyIn(await db.session(), "copy sale from stdin", "north\t4\thush\t0\n")
      await copyIn(await db.session(), "copy sale_north from stdin", "north\t5\thush\t0\n")
      await db.query(
        "update sale set n = 1 where id = 1; update sale_south set n = 1 where id = 2; delete from sale_north where id = 1",
      )
      const log = await readLog(db)
      t.same(
        log.map(({ op, table, old, new: after }) => [op, table, (after ?? old)?.id]),
        [
          ["insert", "public.sale", 1],
          ["insert", "public.sale", 2],
          ["insert", "public.sale", 3],
          ["insert", "public.sale", 4],
          ["insert", "public.sale", 5],
          ["update", "public.sale", 1],
          ["update", "public.sale", 2],
          ["delete", "public.sale", 1],
        ],
      )
      t.notMatch(await writtenText(db), /hush|secret/)
    })

    t.test("a row that moves between partitions is a delete and an insert under one xid", async (t) => {
      const db = await database(t, { version })
      await db.query(`${ROOT}; insert into sale values ('north', 1, 'hush')`)
      await db.query("update sale set region = 'south' where id = 1")
      const [removed, added] = (await readLog(db)).slice(1)
      t.match(
        [removed, added],
        [
          { op: "delete", old: { region: "north", id: 1 } },
          { op: "insert", new: { region: "south", id: 1 } },
        ],
      )
      t.equal(removed?.xid, added?.xid)
    })

    for (const when of ["before", "after"]) {
      t.test(
        `a partition with another column order, attached ${when} track, sends the same columns`,
        async (t) => {
          const db = await database(t, { version })
          const writer = await db.session()
          await db.query(
            when === "after"
              ? `${ROOT}; ${ODD}`
              : ROOT.replace("select relay.track", `${ODD}; select relay.track`),
          )
          await writer.query(
            "insert into sale values ('odd', 1, 'hush', 1); insert into sale_odd (region, id, secret) values ('odd', 2, 'hush')",
          )
          await writer.query(
            "update sale set n = 5 where id = 1; update sale_odd set n = 6 where id = 2; update sale set region = 'north' where id = 2; delete from sale",
          )
          const log = await readLog(db)
          t.equal(log.length, 8)
          t.notMatch(await writtenText(db), /hush|secret/)
          t.match(log[0]?.new, { region: "odd", id: 1, n: 1 })
          t.match(log[3], { old: { region: "odd", id: 2, n: 0 }, new: { region: "odd", id: 2, n: 6 } })
        },
      )
    }

    t.test(
      "a partition with another column order does not leak under a fixed snapshot, nor after a renaming",
      async (t) => {
        const db = await database(t, { version })
        await db.query(ROOT)
        const [warm, fixed] = [await db.session(), await db.session()]
        await warm.query("insert into sale values ('north', 50, 'hush')")
        await fixed.query("begin isolation level repeatable read; select from vote")
        await db.query(ODD)
        await fixed.query(
          "insert into sale values ('odd', 1, 'hush'); update sale set n = 1 where id = 1; commit",
        )
        await fixed.query("begin isolation level repeatable read; select from vote")
        await db.query(
          "alter table sale rename secret to x; alter table sale rename region to secret; alter table sale rename x to region",
        )
        for (const [n, session] of [warm, fixed].entries()) {
          await session.query(`insert into sale (secret, id, region) values ('odd', 1${n}, 'hush'), ('north', 2${n}, 'hush');
          update sale set n = 2 where id in (1${n}, 2${n}); delete from sale where id = 1${n}`)
          await session.query("commit")
        }
        const log = await readLog(db)
        t.equal(log.length, 3 + 10)
        t.notMatch(await writtenText(db), /hush|secret/)
        t.match(await problemOf(db), /renamed/)
      },
    )

    t.test(
      "a partition made after track works for rows; its TRUNCATE is reported as unseen until tracked again",
      async (t) => {
        const db = await database(t, { version })
        await db.query(`${ROOT}`)
        t.equal(await problemOf(db), null)
        await db.query(`create table sale_west partition of sale for values in ('west');
        insert into sale values ('west', 1, 'hush'); insert into sale_west values ('west', 2, 'hush'); update sale set n = 1 where id = 2`)
        t.same(await readOps(db), ["insert", "insert", "update"])
        t.match(
          await problemOf(db),
          /its trigger "000_relay_truncate_\d+" is missing on public.sale_west: as the owner of the tables, select relay.mend/,
        )
        await db.query("select relay.track('sale', exclude => array['secret'])")
        t.equal(await problemOf(db), null)
        await db.query("truncate sale_west")
        t.match(await lastEntry(db), {
          op: "truncate",
          table: "public.sale",
          meta: { partition: "public.sale_west" },
        })
      },
    )

    t.test("TRUNCATE of the root and of one partition are entries that say which", async (t) => {
      const db = await database(t, { version })
      await db.query(`${ROOT}; truncate sale_south_1`)
      t.match(await lastEntry(db), {
        op: "truncate",
        table: "public.sale",
        meta: { partition: "public.sale_south_1" },
      })
      const before = (await readLog(db)).length
      await db.query("truncate sale")
      const log = (await readLog(db)).slice(before)
      const root = log.filter(({ meta }) => meta.partition === undefined)
      t.match(root, [{ op: "truncate", table: "public.sale" }])
      for (const { op } of log) t.equal(op, "truncate")
    })

    t.test("a detached partition is a table of its own and no longer captured", async (t) => {
      const db = await database(t, { version })
      await db.query(
        `${ROOT}; insert into sale values ('north', 1); alter table sale detach partition sale_north`,
      )
      await db.query(
        "insert into sale_north values ('north', 2); update sale_north set n = 3; insert into sale values ('south', 3)",
      )
      t.same(await readOps(db), ["insert", "insert"])
    })

    t.test("a table that is tracked already and then attached is logged once under each name", async (t) => {
      const db = await database(t, { version })
      await db.query(
        `${ROOT}; create table sale_west (like sale including all); select relay.track('sale_west')`,
      )
      await db.query(
        "alter table sale attach partition sale_west for values in ('west'); insert into sale values ('west', 1, null)",
      )
      t.same((await readLog(db)).map(({ op, table }) => `${op} ${table}`).sort(), [
        "insert public.sale",
        "insert public.sale_west",
      ])
    })

    t.test("an application's AFTER ROW trigger on one partition keeps insert before update", async (t) => {
      const db = await database(t, { version })
      await db.query(`${ROOT}; create function bump() returns trigger language plpgsql as
          $$ begin update sale set n = n + 1 where id = new.id; return null; end $$;
        create trigger "Aaa" after insert on sale_north for each row execute function bump()`)
      await db.query("insert into sale values ('north', 1, null), ('north', 2, null)")
      for (const id of [1, 2])
        t.same(
          (await readLog(db))
            .filter((entry) => entry.new?.id === id)
            .map(({ op, new: after }) => [op, after?.n]),
          [
            ["insert", 0],
            ["update", 1],
          ],
        )
    })

    t.test("an UPDATE of excluded columns of a partition only is no event", async (t) => {
      const db = await database(t, { version })
      await db.query(
        `${ROOT}; ${ODD}; insert into sale values ('odd', 1, 'hush'); update sale set secret = 'x'; update sale_odd set secret = 'y'`,
      )
      t.same(await readOps(db), ["insert"])
    })
  })
}
