/** What an installation leaves behind when it is taken out, or fails: nothing. */

import t from "tap"
import { install, uninstall } from "../../cli/schema/install.ts"
import { applySql, readMigrations } from "../../cli/schema/migrations.ts"
import { track } from "../../cli/schema/track.ts"
import { type Database, database } from "../helpers/database.ts"
import { missing, refusal, VERSIONS } from "../helpers/log.ts"
import { until } from "../helpers/wait.ts"

/** Everything in the catalogs that an installation could leave behind. Other databases of the server are other tests'. */
const catalog = (db: Database) =>
  db.query(`
    with own as materialized (select oid, datacl from pg_database where datname = current_database()),
    role as materialized (select r.oid, rolname from pg_roles r, own where rolname ~ own.oid::text)
    select 'schema ' || nspname as it from pg_namespace where nspname !~ '^pg_(toast_)?temp_'
    union all select 'function ' || oid::regprocedure from pg_proc
    union all select 'relation ' || oid::regclass from pg_class where relnamespace::regnamespace::text !~ '^pg_(toast_)?temp_' and relkind <> 't' and relname !~ '^pg_toast'
    union all select 'trigger ' || tgname || ' on ' || tgrelid::regclass from pg_trigger where not tgisinternal
    union all select 'type ' || oid::regtype from pg_type where typnamespace::regnamespace::text !~ '^pg_toast'
    union all select 'acl ' || datacl::text from own
    union all select 'setting ' || setconfig::text from pg_db_role_setting
      where setdatabase in (select oid from own) or setrole in (select oid from role)
    union all select 'role ' || rolname from role
    order by 1`)

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    const fresh = () => database(t, { version, empty: true })

    t.test("install and uninstall leave no trace", async (t) => {
      for (const as of ["url", "superuserUrl"] as const) {
        const db = await database(t, { version, empty: true })
        await db.query(
          "create table vote (id int primary key, committee_id int); create table p (id int primary key) partition by range (id); create table p1 partition of p default",
        )
        const before = await catalog(db)
        await install(db[as])
        await track(db[as], "p", {})
        await db.query("insert into vote values (1); insert into p values (1)")
        t.equal(await uninstall(db[as]), true)
        t.same(await catalog(db), before, as)
        t.equal(await uninstall(db[as]), false)
        await db.query("insert into vote values (2); update vote set id = 3 where id = 2; truncate vote")
      }
    })

    t.test("uninstall while writers write: no statement fails", async (t) => {
      const db = await database(t, { version })
      const failures: string[] = []
      const counts = [0, 0, 0, 0]
      let stopped = false
      const writers = counts.map(async (_, n) => {
        const session = await db.session(db.writerUrl)
        while (!stopped) {
          try {
            await session.query("begin")
            await session.query("insert into vote (votes) values (1)")
            await session.query("insert into attendance default values")
            await session.query("update vote set votes = votes + 1 where id = (select max(id) from vote)")
            await session.query("commit")
          } catch (error) {
            failures.push((error as Error).message)
            await session.query("rollback")
          }
          counts[n] = (counts[n] ?? 0) + 1
        }
      })
      await until("all writers have written", () => counts.every((n) => n > 2))
      t.equal(await uninstall(db.url), true)
      const then = [...counts]
      await until("all writers go on", () => counts.every((n, i) => n > (then[i] ?? 0) + 2))
      stopped = true
      await Promise.all(writers)
      t.same(failures, [])
      t.same(await db.query("select to_regnamespace('relay') as it"), [{ it: null }])
    })

    t.test("uninstall gives way to a long transaction and succeeds after it", async (t) => {
      const db = await database(t, { version })
      const writer = await db.session()
      await writer.query("begin; insert into vote (votes) values (1)")
      const done = uninstall(db.url)
      await until("uninstall waits for a lock", async () => {
        const rows = await db.query(
          "select from pg_stat_activity where application_name = 'commitcast' and wait_event_type = 'Lock' and datname = current_database()",
        )
        return rows.length === 1
      })
      await writer.query("commit")
      t.equal(await done, true)
    })

    t.test("uninstall does not drop a schema named relay that is not ours", async (t) => {
      const db = await fresh()
      await db.query(
        "create schema relay; create table relay.mine (id int); insert into relay.mine values (1)",
      )
      t.match(await uninstall(db.url).catch((error) => error), {
        name: "ConfigError",
        message: /not CommitCast's/,
      })
      t.equal((await db.query("select from relay.mine")).length, 1)
    })

    t.test("a failed installation leaves nothing", async (t) => {
      const db = await fresh()
      const before = await catalog(db)
      const session = await db.session()
      const [last] = (await readMigrations()).slice(-1)
      t.ok(last !== undefined)
      await session.query("begin")
      for (const migration of await readMigrations()) await session.query(applySql(migration))
      t.match(await refusal(session.query("select 1 / 0")), { code: "22012" })
      await session.query("rollback")
      t.same(await catalog(db), before)
    })
  })
}
