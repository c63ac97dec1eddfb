/** Our SQL, taken apart: what is fixed when it is made depends on nobody's objects, and what is not is pinned or qualified. */

import t from "tap"
import { query } from "../../cli/commands/query.ts"
import { install } from "../../cli/schema/install.ts"
import { track, untrack } from "../../cli/schema/track.ts"
import { PIN, PIN_TRANSACTION } from "../../relay/lib/pinned-client.ts"
import { execSql, noBinaries } from "../helpers/cluster.ts"
import { VERSIONS } from "../helpers/log.ts"
import { makeWorld, openGarden, sentIn, type World } from "../helpers/planted-world.ts"
import { unqualifiedIn } from "../helpers/qualified.ts"
import { startRelay } from "../helpers/relay.ts"

const PINNED = "set search_path = pg_catalog, pg_temp"
/** The search_path of a function of ours: PostgreSQL's own first, the session's own last, and nobody's between. */
const FUNCTION_PIN = /^search_path=pg_catalog, (relay, )?pg_temp$/

const rowsOf = async (world: World, sql: string): Promise<string[]> =>
  (await execSql<{ line: string }>(world.superuserUrl, PINNED, sql)).map(({ line }) => line)

/** What is not a plant itself and depends on one. The plants are in the schema app. */
const DEPENDENTS = `
  with plant(class, id) as (
    select 'pg_proc'::regclass, oid from pg_proc where pronamespace = 'app'::regnamespace union all
    select 'pg_operator'::regclass, oid from pg_operator where oprnamespace = 'app'::regnamespace union all
    select 'pg_class'::regclass, oid from pg_class where relnamespace = 'app'::regnamespace union all
    select 'pg_type'::regclass, oid from pg_type where typnamespace = 'app'::regnamespace)
  select pg_describe_object(d.classid, d.objid, d.objsubid) || ' depends on ' || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) as line
  from pg_depend d join plant p on (p.class, p.id) = (d.refclassid, d.refobjid), pg_identify_object(d.classid, d.objid, d.objsubid) o
  where o.identity !~ '(^| on |for )app\\.' and not exists (select from plant q where (q.class, q.id) = (d.classid, d.objid))
  order by 1`

/** The functions of ours that run under their caller's path. */
const UNPINNED = `
  select p.oid::regprocedure || ': ' || p.prosrc as line from pg_proc p
  where p.pronamespace = 'relay'::regnamespace
    and not exists (select from unnest(p.proconfig) c where c ~ '^search_path=')
  order by 1`

const PINS = `
  select distinct c as line from pg_proc p, unnest(p.proconfig) c
  where p.pronamespace = 'relay'::regnamespace and c ~ '^search_path='`

/** What a session has sent while its search_path was not pinned. */
function sentUnpinned(statements: string[]): string[] {
  let [session, transaction] = [false, undefined as boolean | undefined]
  const found: string[] = []
  for (const statement of statements) {
    // Its author's SQL follows.
    if (statement === "reset search_path") return found
    if (!(transaction ?? session) && !/^(begin|set|commit|rollback|show)\b[^(]*$/.test(statement))
      found.push(statement)
    if (statement === PIN) session = true
    if (statement === PIN_TRANSACTION) transaction = true
    if (/set local search_path to default/.test(statement)) transaction = false
    if (/^(commit|rollback)\b/.test(statement)) transaction = undefined
  }
  return found
}

t.test("what is not qualified is found", async (t) => {
  const functions = new Set(["lower", "format", "count", "text"])
  for (const sql of [
    "select lower('x')",
    "select a || b from relay.change",
    "select x = 1",
    "select x::text",
    "select x::json",
    "select x in (1, 2)",
    "select case x when 1 then 2 end",
    "select x is distinct from y",
    "select from pg_class",
    "select x from relay.a join relay.b using (id)",
    "declare v_x text; begin end",
    "select nullif(x, y)",
    "select x - 1",
  ])
    t.not(unqualifiedIn(sql, functions).length, 0, sql)
  for (const sql of [
    "select pg_catalog.lower('x = y') -- a = b",
    "select a operator(pg_catalog.||) b, -1, count.n from relay.change count",
    "select x::pg_catalog.text[], y::bigint, * from pg_catalog.pg_class",
    "declare v_x pg_catalog.text := pg_catalog.lower('x'); v_n integer; begin v_n := 1; end",
    "select coalesce(x, 1), case when a then b end",
    "begin raise exception 'x' using errcode = 'y', hint = 'z'; end",
  ])
    t.strictSame(unqualifiedIn(sql, functions), [], sql)
})

for (const version of VERSIONS)
  t.test(`on PostgreSQL ${version}`, { skip: noBinaries(version) }, async (t) => {
    const garden = await openGarden(t, version)
    const world = await makeWorld(t, garden, { kind: "doubles", installer: "owner", place: "own" })
    const functions = new Set(
      await rowsOf(
        world,
        "select distinct proname::text as line from pg_proc where pronamespace = 'pg_catalog'::regnamespace",
      ),
    )
    await install(world.url)
    await track(world.url, "parts", { type: "part_update", exclude: ["j"] })
    await track(world.url, "guarantee", { level: "statement", restricted: '{"admin": ["tags"]}' })

    t.test("nothing of ours depends on what somebody has planted", async (t) => {
      t.strictSame(await rowsOf(world, DEPENDENTS), [])
      await execSql(
        world.superuserUrl,
        "set search_path = app, pg_catalog",
        "create view relay.careless as select lower('x') as x",
      )
      t.match(
        await rowsOf(world, DEPENDENTS),
        [/view relay\.careless depends on function app\.lower/],
        "it would be found",
      )
      await execSql(world.superuserUrl, "drop view relay.careless")
    })

    t.test("every function has its own search_path, or names everything by its schema", async (t) => {
      for (const pin of await rowsOf(world, PINS)) t.match(pin, FUNCTION_PIN)
      for (const line of await rowsOf(world, UNPINNED)) {
        const [, name = "", source = ""] = /^(.*?\)): ([\s\S]*)$/.exec(line) ?? []
        t.strictSame(unqualifiedIn(source, functions), [], name)
      }
    })

    t.test("what a program sends while the path is its role's names everything by its schema", async (t) => {
      const relay = await startRelay(t, world, { CANARY_SECONDS: "1" })
      const client = await relay.connect({}, "?channels=election_updates,dashboard")
      await execSql(world.writerUrl, "insert into public.vote (votes) values (1)")
      await client.first("the change", ({ type }) => type === "voting_update")
      await client.first(
        "what is derived",
        ({ type, data }) => type === "dashboard_update" && data !== undefined,
      )
      await relay.stop()
      await query(world.url, "select 1", () => {})
      await untrack(world.url, "vote")
      const sent = await sentIn(garden, world, /^commitcast/)
      t.ok(sent.length > 8, `${sent.length} sessions`)
      const unpinned = [...new Set(sent.flatMap(sentUnpinned))]
      t.ok(unpinned.length > 1, `${unpinned.length} statements`)
      for (const statement of unpinned) t.strictSame(unqualifiedIn(statement, functions), [], statement)
    })
  })
