/**
 * Somebody has planted in a schema of the path: a double of everything that PostgreSQL has by a name, and functions and
 * operators that fit better. Every command runs, and none of the plants.
 */

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import pg from "pg"
import t, { type Test } from "tap"
import { doctor } from "../../cli/commands/doctor.ts"
import { query } from "../../cli/commands/query.ts"
import { install, uninstall } from "../../cli/schema/install.ts"
import { applySql, readMigrations } from "../../cli/schema/migrations.ts"
import { track, untrack } from "../../cli/schema/track.ts"
import { readSettings } from "../../relay/config.ts"
import { createChangelog } from "../../relay/feed/changelog.ts"
import { PIN } from "../../relay/lib/pinned-client.ts"
import { execSql, noBinaries } from "../helpers/cluster.ts"
import { dump, noDump, restore } from "../helpers/dump.ts"
import { copyIn, VERSIONS } from "../helpers/log.ts"
import {
  type Garden,
  type Installer,
  type Kind,
  makeWorld,
  openGarden,
  type Place,
  type World,
  whatRan,
} from "../helpers/planted-world.ts"
import { startRelay } from "../helpers/relay.ts"

/** What an application writes. It names nothing that could be anybody's. */
const WRITES = [
  "insert into public.vote (election_id, votes, note) values (1, 1, 'a'), (2, 2, null)",
  "update public.vote set votes = 3, note = 'b'",
  "begin; set local relay.bulk_load = 'on'; insert into public.vote (votes) values (9); commit",
  "begin; set local relay.bulk_load = 'summary'; update public.vote set votes = 4; delete from public.vote; commit",
  "insert into public.guarantee (user_id, tags) values (7, '{x,y}'), (8, null)",
  "update public.guarantee set user_id = 9",
  "insert into public.parts (id, region, n, j, d, l) values (1, 'north', 1.5, '{}', '2026-01-01', '1 day'), (2, 'south', null, '[1]', 'infinity', null)",
  "update public.parts set region = 'west'",
  "begin isolation level repeatable read; update public.parts set n = 2; commit",
  "delete from public.parts",
  "insert into public.parts_north (id, region) values (3, 'north')",
  "truncate public.parts_north",
  "truncate public.parts, public.guarantee, public.attendance",
]

/** What an application calls of ours, in a session that it has not pinned. */
const CALLS = [
  "select relay.cursor()",
  "select relay.send_to_user('7', '{\"a\": 1}')",
  "select relay.broadcast('committee:7', '1')",
  "select relay.revoke('8')",
  "select relay.reinstate('8')",
  "select relay.pause()",
  "select * from relay.tracked",
  "select relay.resume()",
  "select relay.is_paused()",
  "select relay.derive('dashboard_update', 'dashboard')",
  "select relay.define_derived('votes_total', 'dashboard_statistics', '{vote}', 'totals')",
  "select relay.drop_derived('votes_total', 'totals')",
  'select relay.track(\'vote\', channels => \'{"election": "election_id"}\', restricted => \'{"admin": ["note"]}\')',
  "select relay.admit_relay('writer')",
  "select relay.admit_publisher('writer')",
  "select relay.admit_revoker('writer')",
  "select * from relay.change",
  "select relay.begin_lineage()",
  "select relay.forget_log()",
]

/** Runs statements as their author's session is, and names the one that fails. */
async function runEach(url: string, statements: string[]): Promise<void> {
  for (const statement of statements)
    await execSql(url, statement).catch((error: Error) => {
      throw new Error(`${statement}: ${error.message}`, { cause: error })
    })
}

/** The first migrations as a DBA applies them by psql, and the program's upgrade from there. */
async function upgrade({ url }: World): Promise<string> {
  const migrations = await readMigrations()
  const session = new pg.Client({ connectionString: url })
  await session.connect()
  try {
    const first = migrations.slice(0, -1).map(applySql).join("\n")
    await session.query(`${PIN};\nbegin;\n${first}\ncommit;\nreset search_path;`)
  } finally {
    await session.end()
  }
  return (await install(url)).state
}

async function examine(t: Test, url: string): Promise<void> {
  const lines: string[] = []
  await doctor({
    settings: readSettings({ DATABASE_URL: url }),
    longSeconds: 600,
    relay: undefined,
    json: false,
    coloured: false,
    print: (line) => lines.push(line),
  })
  t.match(lines.join("\n"), /^ok +tables/m, "the doctor has come to the tables")
}

async function copy({ writerUrl }: World, table: string, lines: string): Promise<void> {
  const writer = new pg.Client({ connectionString: writerUrl })
  await writer.connect()
  try {
    await copyIn(writer, `copy ${table} from stdin`, lines)
  } finally {
    await writer.end()
  }
}

/** Reads every table and view of ours, and calls every function that takes nothing, whatever comes of it. */
async function touchEverything({ url, superuserUrl }: World): Promise<void> {
  const statements = await execSql<{ sql: string }>(
    superuserUrl,
    "set search_path = pg_catalog",
    `select format('table relay.%I', relname) as sql from pg_class where relnamespace = 'relay'::regnamespace and relkind in ('r', 'p', 'v')
     union all
     select format('select relay.%I()', proname) from pg_proc
     where pronamespace = 'relay'::regnamespace and pronargs = pronargdefaults and prorettype <> 'trigger'::regtype`,
  )
  for (const { sql } of statements) await execSql(url, sql).catch(() => {})
  await execSql(url, "select relay.resume()")
}

/** A relay with a client that sees what the application writes, and what is derived. */
async function relayChanges(t: Test, world: World): Promise<void> {
  const { url } = world
  const relay = await startRelay(t, world, { CANARY_SECONDS: "1" })
  const client = await relay.connect({}, "?channels=election_updates,dashboard,election")
  await runEach(world.writerUrl, WRITES)
  await copy(world, "public.attendance", "7b2f3c52-3b0c-4d0e-9a6e-0b8f3f1c2a11\tA voter\n")
  await client.first(
    "the last change",
    ({ table, action }) => table === "public.attendance" && action === "create",
  )
  const derived = await client.first(
    "what is derived",
    ({ type, data }) => type === "dashboard_update" && data !== undefined,
  )
  t.match(
    String(derived.data?.path),
    /^"\$user", public/,
    "the application's function has the path of its role",
  )
  await runEach(url, CALLS)
  await touchEverything(world)
  const changelog = createChangelog(url, () => {})
  await changelog.rotate(0, 0)
  await changelog.tracked()
  await changelog.size()
  await changelog.close()
  await relay.stop()
}

/** Altered, so that the capture goes its rare ways, until the table is tracked again. */
async function alter({ url, superuserUrl, writerUrl }: World): Promise<void> {
  await execSql(
    superuserUrl,
    "set search_path = pg_catalog",
    "alter table public.vote add column more pg_catalog.text; alter table public.vote drop column note",
    "alter table public.parts rename column n to amount",
  )
  await runEach(writerUrl, [
    "insert into public.vote (more) values ('x')",
    "update public.vote set more = 'y'",
    "delete from public.vote",
    "insert into public.parts (id, region, amount) values (9, 'north', 1)",
    "delete from public.parts",
  ])
  await install(url)
  await track(url, "vote", {
    restricted: "{}",
    channels: "{}",
    columns: ["id", "votes", "more"],
    key: ["id"],
  })
  await track(url, "public.parts", { type: "part_update", exclude: ["j"] })
  await execSql(
    superuserUrl,
    "set search_path = pg_catalog",
    "alter table public.vote add column note pg_catalog.text; alter table public.parts rename column amount to n",
  )
  await track(url, "vote", {})
  await track(url, "parts", {})
}

/** What fails does not keep the rest from being tried. */
async function attempt(t: Test, what: string, work: () => Promise<unknown>): Promise<void> {
  await work().catch((error: Error) => t.fail(`${what}: ${error.message}`))
}

async function everything(t: Test, world: World): Promise<void> {
  const { url } = world
  await attempt(t, "upgrade", async () => t.equal(await upgrade(world), "upgraded"))
  await attempt(t, "uninstall", async () => t.equal(await uninstall(url), true))
  await attempt(t, "install", async () =>
    t.match(await install(url), {
      state: "installed",
      tracked: ["guarantee", "attendance", "vote"],
      warnings: [],
    }),
  )
  await attempt(t, "install again", async () => t.match(await install(url), { state: "present" }))
  await attempt(t, "track", async () => {
    await track(url, "parts", { type: "part_update", level: "row" })
    await track(url, "guarantee", { level: "statement", exclude: ["tags"] })
  })
  await attempt(t, "doctor", () => examine(t, url))
  await attempt(t, "relay", () => relayChanges(t, world))
  await attempt(t, "alter", () => alter(world))
  await attempt(t, "doctor of altered tables", () => examine(t, url))
  await attempt(t, "query", () => query(url, "select relay.cursor()", () => {}))
}

async function remove(t: Test, { url }: World): Promise<void> {
  await attempt(t, "untrack", async () => t.equal(await untrack(url, "parts"), true))
  await attempt(t, "uninstall", async () => t.equal(await uninstall(url), true))
}

/** Dumps a world and restores it into another, which is relayed from. */
async function restored(t: Test, garden: Garden, world: World): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), "commitcast-planted-"))
  t.teardown(() => rm(folder, { recursive: true }))
  const name = `${world.name}_restored`
  await dump(world.superuserUrl, join(folder, "dump"))
  await execSql(
    garden.cluster.superuserUrl,
    `create database ${name} template template0 owner app`,
    `alter database ${name} set search_path = "$user", public, pg_catalog`,
  )
  t.teardown(() => execSql(garden.cluster.superuserUrl, `drop database if exists ${name} with (force)`))
  const moved = (url: string) => url.replace(world.name, name)
  await restore(moved(world.superuserUrl), join(folder, "dump"))
  return {
    ...world,
    name,
    url: moved(world.url),
    writerUrl: moved(world.writerUrl),
    superuserUrl: moved(world.superuserUrl),
  }
}

/** Calls of every kind, which are the planter's in a session that is not pinned. */
const CARELESS: Record<Kind, string[]> = {
  doubles: [
    "lower('X')",
    "1 = 1",
    "'a'::text || 1",
    "- n from (values (1)) v(n)",
    "format('%s', 'x'::text)",
    "json_build_object('a'::text, 1)",
    "make_interval(secs => 1)",
    "(select count(*) from pg_class)",
    "(select max(n) from (values (1)) v(n))",
    "(select string_agg(x, ',') from unnest('{a}'::text[]) x)",
    "(select json_agg(x) from generate_series(1, 2) x)",
    "2 in (1, 3)",
    "'a' like 'b'",
  ],
  better: [
    "'a'::text || 1::oid",
    "1::oid = 'pg_class'::regclass",
    "pg_total_relation_size('pg_class'::regclass::oid)",
    "lower('x'::name)",
  ],
}

const MATRIX: Array<[kind: Kind, installer: Installer, place: Place]> = [
  ["doubles", "superuser", "public"],
  ["doubles", "owner", "own"],
  ["doubles", "ordinary", "public"],
  ["better", "superuser", "own"],
  ["better", "owner", "public"],
]

for (const version of VERSIONS)
  t.test(`on PostgreSQL ${version}`, { skip: noBinaries(version) }, async (t) => {
    const garden = await openGarden(t, version)
    t.ok(garden.plants.doubles > 4_000, `${garden.plants.doubles} doubles`)
    t.ok(garden.plants.better > 4_000, `${garden.plants.better} better matches`)

    t.test("a plant says that it ran", async (t) => {
      for (const [kind, calls] of Object.entries(CARELESS) as Array<[Kind, string[]]>) {
        const world = await makeWorld(t, garden, { kind, installer: "owner", place: "public" })
        for (const call of calls) {
          await execSql(world.url, `select ${call}`)
        }
        const ran = await whatRan(garden, world)
        for (const call of calls)
          t.ok(
            ran.some((line) => line.endsWith(` in select ${call}`)),
            call,
          )
      }
    })

    for (const [kind, installer, place] of MATRIX)
      t.test(
        `${kind} in ${place === "public" ? "public" : "the role's own schema"}: nothing of them runs for the ${installer}`,
        async (t) => {
          const world = await makeWorld(t, garden, { kind, installer, place })
          await everything(t, world)
          if (kind === "doubles" && place === "own" && noDump(version) === false) {
            const copy = await restored(t, garden, world)
            await attempt(t, "install", async () => t.match(await install(copy.url), { state: "present" }))
            await attempt(t, "relay", () => relayChanges(t, copy))
            await remove(t, copy)
            t.strictSame(await whatRan(garden, copy), [], "nor in a database that was restored")
          }
          await remove(t, world)
          t.strictSame(await whatRan(garden, world), [])
        },
      )
  })
