/** Installing, upgrading and taking out: by whom, how often, at once, and without a trace. */

import t from "tap"
import { install, uninstall } from "../../cli/schema/install.ts"
import { applySql, readElectionSchema, readMigrations } from "../../cli/schema/migrations.ts"
import { track, untrack } from "../../cli/schema/track.ts"
import { ConfigError } from "../../relay/config.ts"
import { createChangelog } from "../../relay/feed/changelog.ts"
import { type Database, database } from "../helpers/database.ts"
import {
  backendOf,
  missing,
  readLog,
  readOps,
  refusal,
  role,
  VERSIONS,
  waitsForLock,
} from "../helpers/log.ts"
import { until } from "../helpers/wait.ts"

const ownersOf = (db: Database) =>
  db.query<{ owner: string; superuser: boolean; login: boolean }>(`
    select distinct r.rolname as owner, r.rolsuper as superuser, r.rolcanlogin as login
    from (select proowner as o from pg_proc where pronamespace = 'relay'::regnamespace
          union select relowner from pg_class where relnamespace = 'relay'::regnamespace
          union select nspowner from pg_namespace where nspname = 'relay') x, pg_roles r where r.oid = x.o`)

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    const fresh = () => database(t, { version, empty: true })

    t.test(
      "install makes the schema and tracks the tables that are there; a second time it is present",
      async (t) => {
        const db = await database(t, { version, empty: true })
        await db.query("create table vote (id int primary key); create table guarantee (id int)")
        const first = await install(db.url)
        t.match(first, {
          state: "installed",
          tracked: ["vote"],
          warnings: [/guarantee is not captured \(.*no primary key.*commitcast -- track guarantee/],
        })
        const versions = (await readMigrations()).map(({ version: v }) => v)
        t.equal(first.version, versions.at(-1))
        const before = await db.query("select * from relay.migration")
        t.same(await install(db.url), { state: "present", version: first.version, tracked: [], warnings: [] })
        t.same(await db.query("select * from relay.migration"), before)
      },
    )

    t.test("install waits for no lock when it is there already", async (t) => {
      const db = await database(t, { version })
      const writer = await db.session()
      await writer.query(
        "begin; lock table vote in access exclusive mode; lock table relay.change in access exclusive mode",
      )
      t.match(await install(db.url), { state: "present" })
    })

    t.test("eight installs at once end in one installation", async (t) => {
      const db = await database(t, { version, empty: true })
      await db.query("create table vote (id int primary key)")
      const results = await Promise.all(Array.from({ length: 8 }, () => install(db.url)))
      t.ok(results.every(({ state }) => state === "installed" || state === "present"))
      t.same(await db.query("select count(*)::int as n from relay.migration"), [
        { n: (await readMigrations()).length },
      ])
      t.equal((await db.query("select from pg_trigger where not tgisinternal")).length, 4)
      await db.query("insert into vote values (1)")
      t.same(await readOps(db), ["insert"])
    })

    t.test(
      "an ordinary role with CREATE on the database and TRIGGER on another's tables does it all",
      async (t) => {
        const db = await database(t, { version, empty: true })
        const url = await role(t, db, "relayer")
        const name = new URL(url).username
        const parts =
          "create table parts (id int primary key) partition by list (id); create table part_1 partition of parts default"
        await db.query(`create table vote (id int primary key, n int default 0); ${parts}; grant select, insert, update, delete, truncate on vote, parts to writer;
        grant trigger on vote, parts, part_1 to ${name}; grant create on database ${db.name} to ${name}`)
        t.match(await install(url), { state: "installed", tracked: ["vote"], warnings: [] })
        t.same(await ownersOf(db), [{ owner: name, superuser: false, login: true }])
        await track(url, "parts", { type: "part_update" })
        const writer = await db.session(db.writerUrl)
        await writer.query(
          "insert into vote values (1); update vote set n = 1; delete from vote; insert into parts values (1); truncate vote, parts",
        )
        const admin = await db.session(url)
        const query = async (sql: string) => (await admin.query(sql)).rows
        const ops = async () =>
          (await readLog({ query } as never))
            .filter(({ meta }) => meta.partition === undefined)
            .map(({ op }) => op)
        t.same(await ops(), ["insert", "update", "delete", "insert", "truncate", "truncate"])
        await track(url, "vote", { exclude: ["n"] })
        await writer.query("insert into vote values (1); update vote set n = 1")
        t.same((await ops()).slice(6), ["insert"])
        t.equal(await untrack(url, "vote"), true)
        t.equal(await untrack(url, "vote"), false)
        await writer.query("insert into vote values (2)")
        t.equal((await ops()).length, 7)
        t.equal(await uninstall(url), true)
        await writer.query("insert into parts values (2)")
        t.same(await db.query("select from pg_trigger where not tgisinternal"), [])
      },
    )

    t.test("a function of the application that fails for the role is a warning, and no end", async (t) => {
      const db = await database(t, { version, empty: true })
      const url = await role(t, db, "relayer")
      const name = new URL(url).username
      await db.query(`create table vote (id int primary key);
        create function election_results() returns json language sql as 'select to_json(count(*)) from vote';
        grant trigger on vote to ${name}; grant create on database ${db.name} to ${name}`)
      t.match(await install(url), {
        state: "installed",
        tracked: ["vote"],
        warnings: [/^election_results\(\) is not derived from \(permission denied for table vote\)/],
      })
      t.match(await install(url), { state: "present" })
    })

    t.test(
      "a table without TRIGGER for the role is refused by PostgreSQL, and nothing is left",
      async (t) => {
        const db = await database(t, { version, empty: true })
        const url = await role(t, db, "relayer")
        await db.query(
          `create table vote (id int primary key); grant create on database ${db.name} to ${new URL(url).username}`,
        )
        t.match(await install(url), {
          state: "installed",
          tracked: [],
          warnings: [/vote is not captured \(permission denied/],
        })
        const admin = await db.session(url)
        t.match(await refusal(admin.query("select relay.track('vote')")), { code: "42501" })
        t.equal((await admin.query("select from relay.tracking")).rowCount, 0)
      },
    )

    t.test(
      "as a superuser everything belongs to a role that may neither log in nor is a superuser",
      async (t) => {
        const db = await database(t, { version, empty: true })
        await db.query("create table vote (id int primary key)")
        const { tracked } = await install(db.superuserUrl)
        t.same(tracked, ["vote"])
        const [{ oid } = { oid: 0 }] = await db.query<{ oid: number }>(
          "select oid from pg_database where datname = current_database()",
        )
        t.same(await ownersOf(db), [{ owner: `relay_owner_${oid}`, superuser: false, login: false }])
        await db.query("insert into vote values (1); truncate vote")
        const superuser = await db.session(db.superuserUrl)
        t.equal((await superuser.query("select from relay.change")).rowCount, 2)
        t.equal((await superuser.query("select current_user = session_user as it")).rows[0].it, true)
        t.equal(await uninstall(db.superuserUrl), true)
        t.same(
          await db.query("select from pg_roles where rolname ~ '^relay_owner_' and rolname ~ $1", [
            String(oid),
          ]),
          [],
        )
      },
    )

    t.test("a role that may not is told the commands that help, and they do", async (t) => {
      const db = await database(t, { version, empty: true })
      const url = await role(t, db, "guest")
      const name = new URL(url).username
      const error = await install(url).catch((error: Error) => error)
      t.ok(error instanceof ConfigError)
      const message = (error as Error).message
      t.match(message, new RegExp(`role ${name} may not create a schema in ${db.name}`))
      t.match(message, `commitcast -- sql | psql -d ${db.name}`)
      t.match(message, `select relay.admit_relay('${name}')`)
      const grant = /grant create on database .*?;/.exec(message)?.[0] ?? ""
      await db.query(grant)
      t.match(await install(url), { state: "installed" })
      t.equal(await uninstall(url), true)
    })

    t.test(
      "a role that was not admitted to an installed relay is told how, and afterwards finds it present",
      async (t) => {
        const db = await database(t, { version })
        const url = await role(t, db, "guest")
        const error = await install(url).catch((error: Error) => error)
        t.ok(error instanceof ConfigError)
        const command = /select relay\.admit_relay\('the role'\)/.exec((error as Error).message)?.[0] ?? ""
        await db.query(command.replace("the role", new URL(url).username))
        t.match(await install(url), { state: "present" })
      },
    )

    t.test("a schema that is newer, different or not ours is refused", async (t) => {
      const db = await database(t, { version })
      await db.query(
        "insert into relay.migration (version, name, hash) values (9999, '9999_future.sql', 'x')",
      )
      t.match(await install(db.url).catch((error) => error), {
        name: "ConfigError",
        message: /newer \(9999_future.sql\).*update CommitCast/,
      })
      await db.query(
        "delete from relay.migration where version = 9999; update relay.migration set hash = 'x' where version = 1",
      )
      t.match(await install(db.url).catch((error) => error), {
        name: "ConfigError",
        message: /differs from this program's/,
      })
      const foreign = await fresh()
      await foreign.query("create schema relay; create table relay.mine ()")
      t.match(await install(foreign.url).catch((error) => error), {
        name: "ConfigError",
        message: /schema named relay that is not CommitCast's: rename it/,
      })
      t.equal((await foreign.query("select from relay.mine")).length, 0, "and left alone")
    })

    t.test(
      "what commitcast sql prints installs as one script, as an ordinary role and as a superuser",
      async (t) => {
        const script = `begin;\n${(await readMigrations()).map(applySql).join("\n")}\ncommit;`
        for (const as of ["url", "superuserUrl"] as const) {
          const db = await fresh()
          await db.query("create table vote (id int primary key)")
          const session = await db.session(db[as])
          await session.query(script)
          t.match(await install(db[as]), { state: "present" })
          await session.query("select relay.track('public.vote'); insert into public.vote values (1)")
          t.equal((await session.query("select from relay.change")).rowCount, 1)
          t.equal((await ownersOf(db))[0]?.superuser, false)
          t.match(
            await refusal(session.query(script)),
            { code: "42P06" },
            "a second time PostgreSQL refuses it",
          )
          await session.query("rollback")
          await uninstall(db[as])
        }
      },
    )

    t.test(
      "a relay that came before the tables were under capture tells its clients to load again",
      async (t) => {
        const db = await database(t, { version, empty: true })
        await db.query(await readElectionSchema())
        const writer = await db.session()
        await writer.query("begin; insert into vote (votes) values (1)")
        const installing = install(db.url)
        await until(
          "the schema is there",
          async () => (await db.query("select from pg_namespace where nspname = 'relay'")).length > 0,
        )
        const changelog = createChangelog(db.url, () => {})
        const session = await changelog.open()
        t.teardown(async () => {
          session.close()
          await changelog.close()
        })
        const { head } = await session.read(await session.now(), 10)
        await writer.query("commit")
        t.match(await installing, { state: "installed", tracked: ["guarantee", "attendance", "vote"] })
        await t.rejects(session.read(head.snapshot, 10), /another one/)
        const next = await changelog.open()
        t.notOk(next.lineages.has(session.lineage), "no cursor of before can be continued")
        next.close()
      },
    )

    t.test("every function and table for others to use says what it does", async (t) => {
      const db = await database(t, { version })
      const bare = await db.query(`
        select oid::regprocedure::text as it from pg_proc where pronamespace = 'relay'::regnamespace and obj_description(oid, 'pg_proc') is null
          and proname in ('track', 'untrack', 'cursor', 'broadcast', 'send_to_user', 'rotate', 'advance_slot', 'set_lease', 'end_lease', 'meet_lineage', 'begin_lineage', 'contains', 'admit_relay', 'admit_publisher', 'pause', 'resume', 'revoke', 'reinstate', 'admit_revoker', 'define_derived', 'drop_derived', 'renew', 'watch', 'mend')
        union all select oid::regclass::text from pg_class where relnamespace = 'relay'::regnamespace and obj_description(oid, 'pg_class') is null
          and relname in ('change', 'horizon', 'lineage', 'unbroken', 'migration', 'tracking', 'tracked', 'state', 'lease', 'what', 'change_0')`)
      t.same(bare, [])
    })

    t.test(
      "track waits for a writer's lock and gives up its place, so that others are not held up for long",
      async (t) => {
        const db = await database(t, { version })
        await db.query("create table slow (id int primary key)")
        const writer = await db.session()
        await writer.query("begin; insert into slow values (1)")
        const tracking = track(db.url, "slow", {})
        await until("track waits", async () => {
          const rows = await db.query(
            "select from pg_stat_activity where application_name = 'commitcast' and wait_event_type = 'Lock' and datname = current_database()",
          )
          return rows.length === 1
        })
        const other = await db.session(db.url)
        const pid = await backendOf(other)
        const queued = other.query("insert into slow values (2)")
        await waitsForLock(db, pid)
        await queued
        t.pass("the second writer went on before the first one ended")
        await writer.query("commit")
        await tracking
        await db.query("insert into slow values (3)")
        t.same(await readOps(db), ["insert"])
      },
    )
  })
}
