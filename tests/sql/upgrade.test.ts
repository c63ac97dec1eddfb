/** From one schema to the next: what was released stays as it is, and a database that has it comes to the present one. */

import t, { type Test } from "tap"
import { install } from "../../cli/schema/install.ts"
import { applySql, type Migration, readElectionSchema, readMigrations } from "../../cli/schema/migrations.ts"
import { finish, workDirectory } from "../helpers/command.ts"
import { type Database, database } from "../helpers/database.ts"
import { missing, readOps, refusal, role, VERSIONS } from "../helpers/log.ts"
import { metricOf, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"
import { startWriters } from "../helpers/writers.ts"

/** SHA-256 of each migration that was released. Never to be changed: what a database has is found out by it. */
const RELEASED: Record<string, string> = {
  "0001_changelog.sql": "d2aa2a134506e528f96290ad45f68411d547b4e0b7dd1a5f8ae6e3a72c0cd08c",
  "0002_state.sql": "d22b4d79d0ae2d0b67183b5deed6a118d8b630e23f8c590de7a653f841849c59",
  "0003_lineage.sql": "0311485af13b87afe3ace18253ec98d14bfc2d975a907aebb439de53ef2244d1",
  "0004_capture.sql": "b1a4fa6a161b2741b818d055c4e2b09efe36c0e618ee9483af66e496ceafc4ee",
  "0005_code.sql": "41aa2d5be14ad8977ee731432a217ea95e2fb186a1ad9a48fd78eedf8c7dae35",
  "0006_watch.sql": "cb21ad7be3f8f8c7ed0d29a8d384c9396555db795f404e5042089604b009a9dc",
  "0007_track.sql": "1c4a8e0eb9f4149fa51e32bb9abfbb746da227923d09a440ad86b633b871e8b2",
  "0008_messages.sql": "ece75948e4857c2252b766cd259b1b5a306389ff6dc7e641e4b5639afa0370a3",
  "0009_revocation.sql": "29d8b00758a67d1df453e8b3965869dade6590aaac0eeef562e79ae8ee94f079",
  "0010_derived.sql": "b6a41a7b74a633993b7a8dc0158a9503ae62c453d09e35a4d2945b5e8e249321",
  "0011_grants.sql": "28897d20e40e9b8175880aaca2d17141bd646efe2d5f527a6f589aa56c25a8e1",
}
/** The last migration of the first release. */
const FIRST = 11

/** What a release to come may bring: so an upgrade is tried also where nothing has followed the first. */
async function nextRelease(): Promise<Migration[]> {
  const present = await readMigrations()
  const version = (present.at(-1)?.version ?? 0) + 1
  const sql = "create table relay.next_release (id integer);"
  return [...present, { version, name: `00${version}_next.sql`, hash: "x", oldest: FIRST, sql }]
}

const SERVED = ["guarantee", "attendance", "vote"]

/** A database as the first release left it, with the election's tables under capture. */
async function firstRelease(t: Test, version: "15" | "18" = "18"): Promise<Database> {
  const db = await database(t, { version, empty: true })
  await db.query(await readElectionSchema())
  for (const migration of (await readMigrations()).slice(0, FIRST)) await db.query(applySql(migration))
  for (const table of SERVED) await db.query("select relay.track($1::regclass)", [table])
  return db
}

/** Everything in the schema that could differ, a line each; the code of the capture without the numbers of its tables. */
async function schemaOf(db: Database): Promise<string[]> {
  const rows = await db.query<{ line: string }>(`
    with object(kind, name, definition, acl, comment) as (
      select 'function', p.oid::regprocedure::text, regexp_replace(pg_get_functiondef(p.oid), '\\m[0-9]{5,}\\M', 'the table', 'g'), p.proacl, obj_description(p.oid, 'pg_proc')
      from pg_proc p where p.pronamespace = 'relay'::regnamespace
      union all
      select 'relation', c.oid::regclass::text, c.relkind::text || coalesce(pg_get_viewdef(c.oid), ''), c.relacl, obj_description(c.oid, 'pg_class')
      from pg_class c where c.relnamespace = 'relay'::regnamespace
      union all
      select 'column', a.attrelid::regclass || '.' || a.attname, a.attnum || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull
             || coalesce((select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d where d.adrelid = a.attrelid and d.adnum = a.attnum), ''),
             a.attacl, col_description(a.attrelid, a.attnum)
      from pg_attribute a join pg_class c on c.oid = a.attrelid
      where c.relnamespace = 'relay'::regnamespace and a.attnum > 0 and not a.attisdropped
      union all
      select 'migration', m.name, m.version || ' ' || m.hash || ' ' || coalesce(m.oldest, 0), null, null from relay.migration m
      union all
      select 'trigger', g.tgrelid::regclass || ' ' || g.tgname, g.tgtype::text, null, null from pg_trigger g where g.tgname ~ '^000_relay'
    )
    select concat_ws(' ', kind, name, definition, acl, comment) as line from object order by kind, name`)
  return rows.map(({ line }) => line)
}

t.test("what was released is not changed any more", async (t) => {
  const migrations = await readMigrations()
  const released = migrations.filter(({ name }) => name in RELEASED)
  t.strictSame(Object.fromEntries(released.map(({ name, hash }) => [name, hash])), RELEASED)
  t.equal(released.at(-1)?.version, FIRST)
  for (const { name, version, oldest } of migrations.slice(FIRST))
    t.ok(oldest === undefined || oldest < version, `${name} runs beside programs from before it`)
})

for (const version of VERSIONS) {
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test(
      "the first release becomes the present schema, in nothing different from a fresh one",
      async (t) => {
        const old = await firstRelease(t, version)
        const latest = (await readMigrations()).at(-1)?.version ?? 0
        const state = latest > FIRST ? "upgraded" : "present"
        t.same(await install(old.url), { state, version: latest, tracked: [], warnings: [] })
        const fresh = await database(t, { version })
        t.same(await schemaOf(old), await schemaOf(fresh))
        await old.query("insert into vote (votes) values (1)")
        t.same(await readOps(old), ["insert"])
      },
    )

    t.test("writers wait for no upgrade, and lose nothing by it", async (t) => {
      const db = await firstRelease(t, version)
      const open = await db.session()
      await open.query("begin; insert into vote (votes) values (-0)")
      // A writer that waits for a lock for a second fails, and so the test.
      await db.query(`alter role ${new URL(db.url).username} in database ${db.name} set lock_timeout = '1s'`)
      const writers = await startWriters(t, db, 4)
      await until("they write", () => writers.written() > 100)
      const upgraded = await install(db.url, await nextRelease())
      t.match(upgraded, { state: "upgraded" }, "though a transaction is open that has written")
      t.same(await db.query("select * from relay.next_release"), [])
      const before = writers.written()
      await until("they go on", () => writers.written() > before + 100)
      await writers.stop()
      await open.query("commit")
      const [row] = await db.query<{ rows: number; kept: number }>(
        `select (select count(*)::int from vote) as rows,
                (select sum(case op when 'insert' then 1 when 'delete' then -1 else 0 end)::int from relay.change) as kept`,
      )
      t.equal(row?.kept, row?.rows, "each row is in the log")
    })
  })
}

t.test("who was admitted before may do after it what a relay does", async (t) => {
  const db = await firstRelease(t)
  const url = await role(t, db, "relayer")
  await db.query("select relay.admit_relay($1)", [new URL(url).username])
  const next = await nextRelease()
  const early = await install(url, next).catch((error: Error) => error)
  t.match(early, {
    name: "ConfigError",
    message: /of version 11, older than this program.*may not upgrade.*commitcast -- sql --from 11 \| psql/s,
  })
  await db.query(`begin; ${next.slice(FIRST).map(applySql).join("")} commit`)
  t.match(await install(url, next), { state: "present" })
  const relay = await startRelay(t, { url }, { CANARY_SECONDS: "0.2" })
  await until("its canaries come back", async () => (await metricOf(relay, "relay_canary_seconds_count")) > 0)
})

t.test("sql --from prints what an installation of that version lacks, and nothing else", async (t) => {
  const migrations = await readMigrations()
  const { out } = await finish(t, await workDirectory(t), ["sql", "--from", String(FIRST - 1)])
  for (const migration of migrations)
    t.equal(out.includes(applySql(migration)), migration.version >= FIRST, migration.name)
})

t.test("a newer schema is worked with where it says that it runs beside this program", async (t) => {
  const db = await database(t)
  const latest = (await readMigrations()).at(-1)?.version ?? 0
  const newer = (oldest: number | null) =>
    db.query(
      `delete from relay.migration where version > ${latest};
       insert into relay.migration (version, name, hash, oldest) values (${latest + 1}, 'newer.sql', 'x', ${oldest})`,
    )
  await newer(latest)
  t.match(await install(db.url), { state: "present", version: latest })
  const relay = await startRelay(t, db)
  const client = await relay.connect()
  await db.query("insert into vote (votes) values (1)")
  await client.count(1)
  for (const oldest of [latest + 1, null]) {
    await newer(oldest)
    t.match(await refusal(install(db.url)), { message: /newer \(newer.sql\).*update CommitCast/ })
  }
  await db.query("insert into vote (votes) values (2)")
  t.equal((await client.count(2)).length, 2, "a relay that runs goes on")
})
