/** Trees of partitions: told under the root's name wherever they are written, and watched as they grow and change. */

import t from "tap"
import { database } from "../helpers/database.ts"
import { copyIn, missing, VERSIONS } from "../helpers/log.ts"
import { logged, mend, problemOf, remedyOf, watch } from "../helpers/watch.ts"

/** Three levels: by list, by range and by hash, each with a default where there can be one. */
const SALE = `create table sale (k int, id int, n int default 0, primary key (k, id)) partition by list (k);
  create table sale_1 partition of sale for values in (1);
  create table sale_2 partition of sale for values in (2) partition by range (id);
  create table sale_2_low partition of sale_2 for values from (0) to (100);
  create table sale_2_rest partition of sale_2 default partition by hash (id);
  create table sale_2_h0 partition of sale_2_rest for values with (modulus 2, remainder 0);
  create table sale_2_h1 partition of sale_2_rest for values with (modulus 2, remainder 1);
  create table sale_rest partition of sale default;
  select relay.track('sale'); select relay.watch()`

const ARCHIVE = `create table archive (like sale including all) partition by list (k);
  select relay.track('archive'); select relay.watch()`

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("a bulk load is told once a statement, wherever in the tree it is written", async (t) => {
      const db = await database(t, { version })
      await db.query(SALE)
      await db.query("set relay.bulk_load = summary")
      for (const [sql, op] of [
        ["insert into sale_1 values (1, 1), (1, 2)", "insert"],
        ["insert into sale_2 values (2, 1), (2, 200), (2, 201)", "insert"],
        ["insert into sale values (1, 3), (2, 3), (9, 9)", "insert"],
        ["insert into sale_2_low values (2, 7)", "insert"],
        ["update sale_2_rest set n = 1", "update"],
        ["update sale_1 set n = 1", "update"],
        ["update sale set n = 2", "update"],
        ["delete from sale_2_low", "delete"],
        ["delete from sale", "delete"],
      ] as const)
        t.same(await logged(db, () => db.query(sql)), [`sale bulk_load ${op}`], sql)
      const copier = await db.session(`${db.url}?options=-crelay.bulk_load%3Dsummary`)
      for (const [n, name] of ["sale_2_rest", "sale_2", "sale"].entries())
        t.same(
          await logged(db, () => copyIn(copier, `copy ${name} from stdin`, `2\t50${n}\t0\n2\t60${n}\t0\n`)),
          ["sale bulk_load insert"],
          name,
        )
      const nothing = "insert into sale_1 select 1, 1 where false; update sale set n = 1 where id = -1"
      t.same(await logged(db, () => db.query(nothing)), [])
      await db.query(`create table base (id int primary key); create table heir (primary key (id)) inherits (base);
        select relay.track('base'), relay.track('heir'); insert into base values (1); insert into heir values (2)`)
      t.same(await logged(db, () => db.query("update base set id = id + 10")), [
        "base bulk_load update",
        "heir bulk_load update",
      ])
    })

    t.test(
      "a partition that is made, attached, detached or dropped has the table loaded again",
      async (t) => {
        const db = await database(t, { version })
        await db.query(SALE)
        for (const sql of [
          "create table sale_3 partition of sale for values in (3)",
          "create table sale_2_mid partition of sale_2 for values from (5000) to (6000)",
          "alter table sale_2 detach partition sale_2_mid",
          "insert into sale_2_mid values (2, 5001); alter table sale_2 attach partition sale_2_mid for values from (5000) to (6000)",
          "drop table sale_3",
          "alter table sale detach partition sale_2",
        ]) {
          await db.query(sql)
          t.same(
            await logged(db, async () => t.same(await watch(db), ["sale"])),
            ["sale bulk_load attach"],
            sql,
          )
          t.same(await logged(db, () => watch(db)), [], "once")
        }
        t.same(await watch(db), [])
      },
    )

    t.test("what came later is captured at once, and its TRUNCATE once it was mended", async (t) => {
      const db = await database(t, { version })
      await db.query(`${SALE}; create table sale_4 partition of sale for values in (4) partition by list (id);
        create table sale_4_1 partition of sale_4 for values in (1); create table sale_4_rest partition of sale_4 default`)
      t.same(
        await logged(db, () =>
          db.query("insert into sale values (4, 1), (4, 2); update sale_4 set n = 1; delete from sale_4_1"),
        ),
        ["sale insert", "sale insert", "sale update", "sale update", "sale delete"],
      )
      t.match(await problemOf(db, "sale"), /000_relay_truncate_\d+.* is missing on public.sale_4: /)
      await db.query(remedyOf(await problemOf(db, "sale")))
      t.equal(await problemOf(db, "sale"), null)
      t.same(await logged(db, () => db.query("truncate sale_4_1")), ["sale truncate public.sale_4_1"])
    })

    for (const [how, sql] of [
      ["disabled", `alter table $1 disable trigger user`],
      ["made to fire on replicas only", `alter table $1 enable replica trigger "$2"`],
    ] as const)
      t.test(`a trigger that is ${how} on any table of the tree is a problem, and mended`, async (t) => {
        const db = await database(t, { version })
        await db.query(SALE)
        const [trigger] = await db.query<{ name: string }>(
          "select tgname as name from pg_trigger where tgrelid = 'sale'::regclass and tgname ~ 'insert'",
        )
        for (const [leaf, row] of [
          ["sale_1", "(1, 1)"],
          ["sale_2_low", "(2, 1)"],
          ["sale_2_h0", ""],
        ] as const) {
          await db.query(sql.replace("$1", leaf).replace("$2", trigger?.name ?? ""))
          t.match(await problemOf(db, "sale"), new RegExp(`is disabled on public.${leaf}: `))
          t.same(await watch(db), ["sale"], "what was written meanwhile is loaded again")
          t.match(await mend(db, "sale"), /is disabled/)
          t.equal(await problemOf(db, "sale"), null)
          if (row !== "")
            t.same(await logged(db, () => db.query(`insert into ${leaf} values ${row}`)), ["sale insert"])
          t.same(await watch(db), [], "the mending itself is no change")
        }
      })

    t.test("a trigger that is dropped is a problem, and mended in the whole tree", async (t) => {
      const db = await database(t, { version })
      await db.query(SALE)
      const triggers = await db.query<{ name: string }>(
        "select tgname as name from pg_trigger where tgrelid = 'sale'::regclass order by 1",
      )
      t.equal(triggers.length, 4)
      for (const { name } of triggers) {
        await db.query(`drop trigger "${name}" on sale`)
        t.match(await problemOf(db, "sale"), new RegExp(`"${name}" is missing on public.sale: `))
        t.same(await watch(db), ["sale"])
        await mend(db, "sale")
        t.equal(await problemOf(db, "sale"), null)
      }
      t.same(
        await logged(db, () =>
          db.query(
            "insert into sale values (2, 300); update sale_2 set n = 5; delete from sale; truncate sale_1",
          ),
        ),
        ["sale insert", "sale update", "sale delete", "sale truncate public.sale_1"],
      )
    })

    t.test("a partition that moves to another tracked root is told as that one's", async (t) => {
      const db = await database(t, { version })
      await db.query(`${SALE}; ${ARCHIVE}; insert into sale values (1, 1)`)
      await db.query("alter table sale detach partition sale_1")
      t.same(await logged(db, () => db.query("insert into sale_1 values (1, 2); truncate sale_1")), [])
      t.match(await problemOf(db, "sale"), /stands on public.sale_1, which is not part of it.*drop trigger/)
      await db.query("alter table archive attach partition sale_1 for values in (1)")
      t.same((await watch(db)).sort(), ["archive", "sale"])
      for (const name of ["sale", "archive"]) {
        t.type(await mend(db, name), "string")
        t.equal(await problemOf(db, name), null)
        await t.resolves(db.query(`select relay.track('${name}')`), "tracking again works")
      }
      t.same(await logged(db, () => db.query("insert into sale_1 values (1, 3); truncate sale_1")), [
        "archive insert",
        "archive truncate public.sale_1",
      ])
      await db.query("alter table archive detach partition sale_1; select relay.track('archive')")
      t.equal(await problemOf(db, "archive"), null, "tracking again takes its triggers from what left")
      await t.resolves(db.query("select relay.track('sale_1', type => 'first_update')"))
      t.same(await logged(db, () => db.query("insert into sale_1 values (1, 4); truncate sale_1")), [
        "sale_1 insert",
        "sale_1 truncate",
      ])
    })

    t.test("a tracked table that is attached to a tracked root is told as both", async (t) => {
      const db = await database(t, { version })
      await db.query(`${SALE}; create table own (like sale including all); select relay.track('own');
        alter table sale attach partition own for values in (7)`)
      await watch(db)
      await mend(db, "sale")
      t.same([await problemOf(db, "own"), await problemOf(db, "sale")], [null, null])
      for (const name of ["sale", "own"])
        t.same(
          (await logged(db, () => db.query(`insert into ${name} values (7, ${name.length})`))).sort(),
          ["own insert", "sale insert"],
          name,
        )
      t.same((await logged(db, () => db.query("truncate own"))).sort(), [
        "own truncate",
        "sale truncate public.own",
      ])
      await t.resolves(db.query("select relay.track('own'), relay.track('sale'), relay.untrack('own')"))
      t.same(await logged(db, () => db.query("insert into own values (7, 9)")), ["sale insert"])
    })

    t.test("one captured by statement that becomes a partition is mended to rows", async (t) => {
      const db = await database(t, { version })
      await db.query(`create table line (id int primary key); select relay.track('line', level => 'statement');
        create table root (id int primary key) partition by range (id);
        alter table root attach partition line for values from (0) to (100)`)
      t.match(
        await problemOf(db, "line"),
        /part of a tree, and rows that come through another.* not captured/,
      )
      t.same(
        await logged(db, async () => t.match(await mend(db, "line"), /part of a tree/)),
        ["line bulk_load track"],
        "what came meanwhile is loaded again",
      )
      t.equal(await problemOf(db, "line"), null)
      t.same(
        await logged(db, () => db.query("insert into root values (1), (2); insert into line values (3)")),
        ["line insert", "line insert", "line insert"],
      )
    })

    t.test("a column that decides about the partition cannot be restricted", async (t) => {
      const db = await database(t, { version })
      await db.query(SALE)
      for (const [name, restricted] of [
        ["sale", "k"],
        ["moved", "region"],
        ["computed", "name"],
      ] as const) {
        await db.query(`create table if not exists moved (id int not null, region int) partition by list (region);
          create table if not exists computed (id int not null, name text) partition by list (lower(name))`)
        await t.rejects(
          db.query(
            `select relay.track('${name}', key => '{id}', restricted => '{"boss": ["${restricted}"]}')`,
          ),
          { message: /cannot be restricted: it decides in which partition a row lies/ },
          name,
        )
      }
      await db.query(`create table late (id int not null, k int, n int) partition by list (k);
        select relay.track('late', key => '{id}', restricted => '{"boss": ["n"]}');
        create table late_1 partition of late for values in (1) partition by list (n)`)
      t.match(await problemOf(db, "late"), /missing on public.late_1/)
      await mend(db, "late")
      t.match(await problemOf(db, "late"), /column n decides in which partition a row lies and is restricted/)
    })
  })
}
