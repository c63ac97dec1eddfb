/**
 * A table whose owner has put code of hers wherever PostgreSQL runs some for a row: its capture runs none of it with the
 * rights of others. And what the installer gives away by default is not given of what is ours.
 */

import t, { type Test } from "tap"
import { doctor } from "../../cli/commands/doctor.ts"
import { install, uninstall } from "../../cli/schema/install.ts"
import { track, untrack } from "../../cli/schema/track.ts"
import { readSettings } from "../../relay/config.ts"
import { execSql, noBinaries, type OwnCluster, ownCluster } from "../helpers/cluster.ts"
import { VERSIONS } from "../helpers/log.ts"
import { PLANTER, whatRan } from "../helpers/planted-world.ts"
import { PLANTED } from "../helpers/plants.ts"
import { startRelay } from "../helpers/relay.ts"
import { LOGGED } from "../helpers/server-log.ts"

const says = (what: string) => `raise log '${PLANTED} % ran as %', '${what}', current_user;`
const yes = (signature: string, what: string) =>
  `create function ${signature} returns boolean immutable language plpgsql as $$ begin ${says(what)} return true; end $$`

/** Everything that may hold code for a row: its types, their checks and casts, policies, triggers, defaults, rules, indexes. */
const TRAP = [
  yes("hers.checks(anyelement)", "a check"),
  yes("hers.allows(anyelement)", "a policy"),
  "create type hers.mood as enum ('good', 'bad')",
  "create type hers.pair as (a int, b text)",
  "create domain hers.score as int check (hers.checks(value))",
  "create domain hers.document as jsonb check (hers.checks(value))",
  "create domain hers.scores as hers.score[]",
  "create type hers.interval as range (subtype = int)",
  ...["mood", "pair", "interval"].flatMap((type) => [
    `create function hers.json_of(hers.${type}) returns json language plpgsql as $$ begin ${says(`the cast of ${type}`)} return '1'; end $$`,
    `create cast (hers.${type} as json) with function hers.json_of(hers.${type})`,
    `create function hers.text_of(hers.${type}) returns text language plpgsql as $$ begin ${says(`the cast of ${type} to text`)} return 'x'; end $$`,
    `create cast (hers.${type} as text) with function hers.text_of(hers.${type}) as implicit`,
  ]),
  `create function hers.fires() returns trigger language plpgsql as $$ begin ${says("a trigger")} return case tg_op when 'DELETE' then old else new end; end $$`,
  `create function hers.computes(int) returns int immutable language plpgsql as $$ begin ${says("an expression")} return $1; end $$`,
  `create table hers.trap (id hers.score primary key, mood hers.mood default 'good', moods hers.mood[], pair hers.pair, pairs hers.pair[],
     document hers.document, scores hers.scores, span hers.interval, n int default hers.computes(1), twice int generated always as (hers.computes(n)) stored)`,
  "create index on hers.trap (hers.computes(n)) where hers.checks(id)",
  "alter table hers.trap enable row level security, force row level security",
  "create policy hers on hers.trap using (hers.allows(n)) with check (hers.allows(id))",
  "create trigger a_before before insert or update or delete on hers.trap for each row when (true) execute function hers.fires()",
  "create trigger z_after after insert or update or delete on hers.trap for each row execute function hers.fires()",
  "grant usage on schema hers to public; grant trigger on hers.trap to app, relayer",
]
const WRITES = [
  `insert into hers.trap (id, moods, pair, pairs, document, scores, span)
   values (1, '{good,bad}', '(1,x)', array[row(1, 'y')::hers.pair], '{}', '{1,2}', '[1,3)')`,
  "update hers.trap set n = 2, mood = 'bad'",
  "alter table hers.trap add column late hers.pair; update hers.trap set late = row(2, 'z'), n = 3",
  "alter table hers.trap alter column document type hers.mood using 'good'",
  "update hers.trap set n = 4",
  "set relay.bulk_load = 'summary'; update hers.trap set n = 5; set relay.bulk_load = 'off'; delete from hers.trap",
  "truncate hers.trap",
]

async function makeCluster(
  t: Test,
  version: "15" | "18",
): Promise<OwnCluster & { urls: Record<string, string> }> {
  const cluster = await ownCluster(t, LOGGED, version)
  const { url, superuserUrl } = cluster
  await uninstall(url)
  await execSql(
    superuserUrl,
    `create role ${PLANTER} login password 'tests'; create role relayer login password 'tests'; create role nobody login password 'tests'`,
    "grant create on database election to relayer",
  )
  const inElection = superuserUrl.replace(/postgres$/, "election")
  await execSql(inElection, "grant trigger on all tables in schema public to relayer")
  const urls = {
    superuser: inElection,
    owner: url,
    ordinary: url.replace("//app:", "//relayer:"),
    [PLANTER]: url.replace("//app:", `//${PLANTER}:`),
  }
  return { ...cluster, urls }
}

const GIVEN = ["tables", "sequences", "functions", "schemas", "types"]
/** What of ours a role may do, a line each. */
const RIGHTS = (role: string) => `
  select format('%s %s', p, c.oid::regclass) as line from pg_class c, unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) p
  where c.relnamespace = 'relay'::regnamespace and c.relkind in ('r', 'p', 'v') and has_table_privilege('${role}', c.oid, p)
  union all
  select format('%s %s', p, c.oid::regclass) from pg_class c, unnest('{select,usage,update}'::text[]) p
  where c.relnamespace = 'relay'::regnamespace and c.relkind = 'S' and has_sequence_privilege('${role}', c.oid, p)
  union all
  select format('execute %s', f.oid::regprocedure) from pg_proc f
  where f.pronamespace = 'relay'::regnamespace and has_function_privilege('${role}', f.oid, 'execute')
  union all
  select format('%s relay', p) from unnest('{create,usage}'::text[]) p where has_schema_privilege('${role}', 'relay', p)
  order by 1`

for (const version of VERSIONS)
  t.test(`on PostgreSQL ${version}`, { skip: noBinaries(version) }, async (t) => {
    const cluster = await makeCluster(t, version)
    const garden = { cluster, plants: { doubles: 0, better: 0 } }
    const world = { name: "election", superuserUrl: cluster.urls.superuser ?? "" }
    const hers = cluster.urls[PLANTER] ?? ""
    const rightsOf = async (role: string) =>
      (await execSql(world.superuserUrl, RIGHTS(role))).map(({ line }) => line)

    for (const installer of ["superuser", "owner", "ordinary"]) {
      const url = cluster.urls[installer] ?? ""
      t.beforeEach(() => execSql(world.superuserUrl, "drop schema if exists relay cascade"))

      t.test(
        `her code runs as nobody but her, where the ${installer} has her table under capture`,
        async (t) => {
          await execSql(
            world.superuserUrl,
            "drop schema if exists hers cascade",
            `create schema hers authorization ${PLANTER}`,
          )
          for (const statement of TRAP) await execSql(hers, statement)
          await install(url)
          await track(url, "hers.trap", {})
          const relay = await startRelay(t, { url })
          const client = await relay.connect()
          for (const statement of WRITES) await execSql(hers, statement)
          await client.first(
            "the last change",
            ({ table, action }) => table === "hers.trap" && action === "truncate",
          )
          await doctor({
            settings: readSettings({ DATABASE_URL: url }),
            longSeconds: 600,
            relay: undefined,
            json: true,
            coloured: false,
            print: () => {},
          })
          await relay.stop()
          await untrack(url, "hers.trap")
          await uninstall(url)
          const ran = await whatRan(garden, world)
          const asHer = ran.filter((line) => line.includes(` ran as ${PLANTER} `))
          for (const what of ["a check", "a policy", "a trigger", "an expression"])
            t.ok(
              asHer.some((line) => line.startsWith(`${PLANTED} ${what} `)),
              `${what} did run for her`,
            )
          t.strictSame(
            ran.filter((line) => !asHer.includes(line)),
            [],
          )
        },
      )

      t.test(`what the ${installer} gives away by default is not given of what is ours`, async (t) => {
        for (const what of GIVEN)
          await execSql(url, `alter default privileges grant all on ${what} to ${PLANTER}`)
        t.teardown(async () => {
          for (const what of GIVEN)
            await execSql(url, `alter default privileges revoke all on ${what} from ${PLANTER}`)
        })
        await install(url)
        await track(url, "public.vote", {})
        t.strictSame(await rightsOf(PLANTER), await rightsOf("nobody"))
      })
    }
  })
