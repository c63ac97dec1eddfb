/** A schema of which parts are missing: writers go on, doctor says so, and install makes it whole again. */

import t from "tap"
import { findDamage } from "../../cli/schema/damage.ts"
import { install, uninstall } from "../../cli/schema/install.ts"
import { readMigrations } from "../../cli/schema/migrations.ts"
import { ConfigError } from "../../relay/config.ts"
import { asciiDatabase } from "../helpers/ascii.ts"
import { type Database, database } from "../helpers/database.ts"
import { lastEntry, missing, readOps, refusal, role, VERSIONS } from "../helpers/log.ts"
import { openSession } from "../helpers/session.ts"

const TABLES = `create table item (id int primary key, n int, secret text);
  create table parts (id int primary key) partition by list (id); create table part_1 partition of parts default;
  create table line (id int primary key);
  select relay.track('item', type => 'thing_update', exclude => '{secret}', restricted => '{"boss": ["n"]}', max_bytes => 4096),
    relay.track('parts'), relay.track('line', level => 'statement')`

/** Every way to write, to a plain table, a tree and one that is captured by statement. */
const WRITES = `insert into item values (1, 1, 'hush'); update item set n = 2; delete from item; truncate item;
  insert into parts values (1); insert into part_1 values (2); truncate part_1; truncate parts;
  insert into line values (1), (2); update line set id = id + 10; truncate line;
  begin; set local relay.bulk_load = 'summary'; insert into item values (7); insert into line values (7); delete from line; commit;
  truncate item`

/** What may be missing, such as in a dump of a part. */
const LOSSES = [
  "drop table relay.change_0 cascade",
  "drop table relay.change_1 cascade",
  "drop sequence relay.change_seq cascade",
  "drop sequence relay.state cascade",
  "drop sequence relay.lease cascade",
  "drop table relay.tracking cascade",
  "drop table relay.what cascade",
  "drop table relay.horizon cascade",
  "drop table relay.lineage cascade",
  "drop table relay.migration cascade",
  "drop table relay.revocation cascade",
  "drop view relay.tracked",
  "drop function relay.admit_publisher",
  "delete from relay.migration",
  "delete from relay.what",
  "delete from relay.horizon",
]

const damageOf = async (db: Database) => findDamage(await db.session(), await readMigrations())

const trackedOf = (db: Database) =>
  db.query("select to_jsonb(t) - 'target' - 'tracked_at' as it from relay.tracked t order by name")

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    for (const loss of LOSSES)
      t.test(`after ${loss} no write fails, and install captures again what was captured`, async (t) => {
        const db = await database(t, { version })
        await db.query(TABLES)
        const before = await trackedOf(db)
        t.same(await damageOf(db), [])
        t.match(await install(db.url), { state: "present" })
        const warm = await db.session()
        for (const sql of [WRITES, `set client_min_messages = error; ${loss}`, WRITES]) await warm.query(sql)
        await (await db.session()).query(WRITES)
        t.equal((await damageOf(db)).length > 0, true)

        const { state, tracked, warnings } = await install(db.url)
        t.equal(state, "repaired")
        t.same(await damageOf(db), [])
        await warm.query(WRITES)
        if (loss.includes("relay.tracking")) {
          t.same(tracked, [])
          t.match(warnings.join("\n"), /public.item was captured, and it is not known any more how, nor what/)
          t.same(await readOps(db), [], "nothing is captured that may have been left out")
        } else {
          t.same(warnings, [])
          t.same(await trackedOf(db), before)
          await db.query("insert into item values (9, 1, 'hush')")
          t.match(await lastEntry(db), { type: "thing_update", newText: '{"id":9,"n":1}' })
        }
        t.match(await install(db.url), { state: "present" })
      })

    t.test("who was admitted or revoked, and what is derived, is so afterwards", async (t) => {
      const db = await database(t, { version })
      const admitted = new URL(await role(t, db, "relayer")).username
      await db.query(`select relay.admit_relay('${admitted}'), relay.revoke('7');
        select relay.define_derived('total', 'pg_backend_pid', '{vote}'); drop table relay.change_2 cascade`)
      await install(db.url)
      t.same(
        await db.query(
          `select has_table_privilege('${admitted}', 'relay.horizon', 'select') as admitted,
             array(select value from relay.revocation) as revoked, array(select type from relay.derived) as derived`,
        ),
        [{ admitted: true, revoked: ["7"], derived: ["total"] }],
      )
    })

    t.test("cursors of before cannot be continued", async (t) => {
      const db = await database(t, { version })
      const { changelog, session } = await openSession(t, db)
      await db.query("drop table relay.change_2 cascade")
      await install(db.url)
      const next = await changelog.open()
      t.notOk(next.lineages.has(session.lineage))
      next.close()
    })

    t.test("of several installers at once one repairs, and what it tracks stays tracked", async (t) => {
      const db = await database(t, { version })
      await db.query("drop table relay.change_2 cascade")
      const states = (await Promise.all(Array.from({ length: 4 }, () => install(db.url)))).map(
        ({ state }) => state,
      )
      t.same(states.sort(), ["present", "present", "present", "repaired"])
      await db.query("insert into vote (votes) values (1)")
      t.same(await readOps(db), ["insert"])
    })

    t.test("one that a superuser came to own gets an owner who is none", async (t) => {
      const db = await database(t, { version })
      const superuser = await db.session(db.superuserUrl)
      await superuser.query("alter schema relay owner to postgres")
      await superuser.query(`do $$ declare f regprocedure; begin
        for f in select oid from pg_proc where pronamespace = 'relay'::regnamespace loop
          execute format('alter function %s owner to postgres', f); end loop; end $$`)
      const { rows } = await superuser.query("select problem from relay.tracked where name = 'public.vote'")
      t.match(
        rows[0]?.problem,
        /runs with the rights of postgres, a superuser: as postgres, install it again/,
      )
      t.match(await install(db.superuserUrl), { state: "repaired", warnings: [] })
      const owners = await db.query(
        "select rolsuper from pg_namespace n join pg_roles r on r.oid = n.nspowner where nspname = 'relay'",
      )
      t.same(owners, [{ rolsuper: false }])
      await uninstall(db.superuserUrl)
    })

    t.test("a role that may not repair is told who may; nothing is changed", async (t) => {
      const db = await database(t, { version })
      const url = await role(t, db, "guest")
      await db.query(
        `select relay.admit_relay('${new URL(url).username}'); drop table relay.change_2 cascade`,
      )
      const found = await install(url).catch((error: Error) => error)
      t.ok(found instanceof ConfigError)
      t.match((found as Error).message, /parts of the relay's schema are missing.*As app or a superuser run/s)
      t.match(await install(db.url), { state: "repaired" })
    })

    t.test("a damaged schema can be uninstalled", async (t) => {
      const db = await database(t, { version })
      await db.query("set client_min_messages = error; drop table relay.tracking cascade")
      t.equal(await uninstall(db.url), true)
      t.same(await db.query("select from pg_trigger where not tgisinternal"), [])
    })

    t.test("a database without an encoding is refused, with the remedy", async (t) => {
      const { home, url } = await asciiDatabase(t, version)
      const error = await refusal(install(url))
      t.match(error?.message, /has the encoding SQL_ASCII, so that nobody knows.*createdb .*UTF8/s)
      const session = await home.session(url)
      t.equal((await session.query("select from pg_namespace where nspname = 'relay'")).rowCount, 0)
    })
  })
}
