/** What may be derived: each wrong definition is refused with what to do, and a right one is tried at once. */

import t, { type Test } from "tap"
import { install } from "../../cli/schema/install.ts"
import { readElectionSchema } from "../../cli/schema/migrations.ts"
import { database } from "../helpers/database.ts"

const define = async (t: Test) => {
  const db = await database(t)
  await db.query(`
    create schema app;
    create function app.one() returns json language sql as $$ select '1'::json $$;
    create function app.with(n int) returns json language sql as $$ select '1'::json $$;
    create function app.wide() returns table (a int, b int, c int) language sql as $$ select 1, 2, 3 $$;
    create function app.broken() returns json language sql as $$ select to_json(1 / (select count(*) from vote)) $$;
    create table app.plain (id int primary key)`)
  return db
}

t.test("a wrong definition is refused", async (t) => {
  const db = await define(t)
  const cases: Array<[args: string, message: RegExp]> = [
    ["'Bad', 'app.one', '{vote}'", /type 'Bad' cannot be used/],
    ["'ping', 'app.one', '{vote}'", /type 'ping' cannot be used/],
    ["'voting_update', 'app.one', '{vote}'", /that of a tracked table/],
    ["'x', 'app.one', '{vote}', action => 'create'", /action 'create' cannot be used/],
    ["'x', 'app.one', '{vote}', channel => 'user'", /channel 'user' cannot be used/],
    ["'x', 'app.one', '{vote}', channel => 'election:1'", /a prefix without an id/],
    ["'x', 'app.one', '{vote}', min_interval => '10 ms'", /100 ms or more/],
    ["'x', 'app.one', '{vote}', max_age => '10 ms'", /100 ms or more/],
    ["'x', 'app.one', '{vote}', max_age => null", /100 ms or more/],
    ["'x', 'app.none', '{vote}'", /function "app.none" does not exist/],
    ["'x', 'app.with', '{vote}'", /without arguments/],
    ["'x', 'app.wide', '{vote}'", /rows of an id and a json value/],
    ["'x', 'app.broken', '{vote}'", /division by zero/],
    ["'x', 'app.one', '{app.plain}'", /plain is not tracked/],
  ]
  for (const [args, message] of cases)
    await t.rejects(db.query(`select relay.define_derived(${args})`), message, args)
  t.same(await db.query("select * from relay.derived"), [])
})

t.test(
  "a definition names its function and tables as they are called, wherever it was written",
  async (t) => {
    const db = await define(t)
    await db.query(`
    set search_path = app, public;
    select relay.define_derived('x', 'one', '{vote,guarantee}', channel => 'news', action => 'count')`)
    t.match(await db.query("select * from relay.derived"), [
      {
        type: "x",
        channel: "news",
        action: "count",
        function: "app.one",
        tables: ["public.guarantee", "public.vote"],
      },
    ])
    await db.query("reset search_path")
    t.same(await db.query("select * from relay.derive('x', 'news')"), [{ id: null, data: "1" }])
    await db.query("drop function app.one()")
    await t.rejects(db.query("select * from relay.derive('x', 'news')"), /the function of x is gone/)
    t.same(
      await db.query("select relay.drop_derived('x', 'news'), relay.drop_derived('x', 'none') as none"),
      [{ drop_derived: true, none: false }],
    )
  },
)

t.test("a role that was admitted runs the function with its own rights", async (t) => {
  const db = await define(t)
  await db.query(`
    create function app.sum() returns json language sql as $$ select to_json(coalesce(sum(votes), 0)) from public.vote $$;
    create function app.trusted() returns json language sql security definer set search_path = public, pg_temp as $$ select to_json(coalesce(sum(votes), 0)) from vote $$;
    select relay.define_derived('sum', 'app.sum', '{vote}'), relay.define_derived('trusted', 'app.trusted', '{vote}');
    select relay.admit_relay(current_user)`)
  const role = `${db.name}_relay`
  await db.query(
    `create role ${role}; grant usage on schema app to ${role}; select relay.admit_relay('${role}')`,
  )
  t.teardown(() => db.query(`reset role; drop owned by ${role}; drop role ${role}`))
  await db.query(`grant ${role} to current_user`)
  await db.query(`set role ${role}`)
  await t.rejects(
    db.query("select * from relay.derive('sum', 'dashboard')"),
    /permission denied for table vote/,
  )
  t.same(await db.query("select data from relay.derive('trusted', 'dashboard')"), [{ data: "0" }])
  await t.rejects(db.query("select relay.define_derived('y', 'app.trusted', '{vote}')"), /permission denied/)
  await db.query("reset role")
})

t.test("the demo's numbers are derived from the first installation on, and are right", async (t) => {
  const db = await database(t, { empty: true })
  await db.query(await readElectionSchema())
  await install(db.url)
  t.same(await db.query("select type, channel, action, tables from relay.derived order by type"), [
    {
      type: "dashboard_update",
      channel: "dashboard",
      action: null,
      tables: ["public.attendance", "public.guarantee", "public.vote"],
    },
    { type: "voting_update", channel: "election", action: "results", tables: ["public.vote"] },
  ])
  await db.query(`
    insert into election (name) values ('Second');
    insert into candidate (election_id, name) values (2, 'Only');
    insert into vote (election_id, committee_id, candidate_id, votes, status)
    values (1, 1, 2, 40, 'entered'), (1, 2, 2, 2, 'verified'), (1, 2, 1, 50, 'entered'), (2, 3, 5, 7, 'entered');
    insert into guarantee (election_id, committee_id, status) values (1, 1, 'pledged'), (1, 1, 'confirmed'), (2, 2, 'pledged'), (null, null, 'pledged');
    insert into attendance (election_id, committee_id, present, marked_at)
    values (1, 1, true, '2026-11-03 08:10+00'), (1, 1, true, '2026-11-03 09:59+01'), (1, 2, false, '2026-11-03 09:00+00'), (2, 2, true, '2026-11-03 09:00+00')`)
  const numbers = async (type: string, channel: string) =>
    Object.fromEntries(
      (
        await db.query<{ id: string; data: string }>("select * from relay.derive($1, $2)", [type, channel])
      ).map(({ id, data }) => [id ?? "all", JSON.parse(data)]),
    )
  const results = await numbers("voting_update", "election")
  t.match(results["1"], {
    election_id: 1,
    votes: 92,
    committees_reported: 2,
    candidates: [
      { candidate_id: 1, votes: 50 },
      { candidate_id: 2, votes: 42 },
      { candidate_id: 3, votes: 0 },
      { candidate_id: 4, votes: 0 },
    ],
  })
  t.match(results["2"], { votes: 7, candidates: [{ name: "Only", votes: 7 }] })
  const statistics = await numbers("dashboard_update", "dashboard")
  t.match(statistics["1"], {
    election: "Board election",
    guarantees: { total: 2, by_status: { confirmed: 1, pledged: 1 }, by_committee: { 1: 2 } },
    attendance: {
      present: 2,
      by_committee: { 1: 2 },
      by_hour: [{ hour: "2026-11-03T08:00:00+00:00", present: 2 }],
    },
    counting: {
      entries: 3,
      verified: 1,
      votes: 92,
      committees_reported: 2,
      committees: 12,
      by_committee: { 1: { entries: 1, verified: 0, votes: 40 }, 2: { entries: 2, verified: 1, votes: 52 } },
    },
  })
  t.match(statistics.all, {
    election: null,
    guarantees: { total: 4, by_status: { confirmed: 1, pledged: 3 } },
    attendance: { present: 3 },
    counting: { entries: 4, votes: 99, committees_reported: 3 },
  })
  const { committees, attendance, counting } = statistics["1"]
  t.same(Object.keys(counting.by_committee), ["1", "2"])
  t.same(committees[1], { id: 2, name: "Committee 2" })
  t.match(attendance.over_time, { step_seconds: 60, from: "2026-11-03T08:10:00+00:00" })
  t.same(attendance.over_time.present, [1, ...Array.from({ length: 48 }, () => 0), 1])
  await db.query(`insert into attendance (election_id, present, marked_at)
    values (1, true, '2026-11-03 18:00+00'), (1, true, '2026-11-03 23:00+00'), (1, true, 'infinity'), (2, true, '1970-01-01')`)
  const later = await numbers("dashboard_update", "dashboard")
  t.equal(later["1"].attendance.over_time.step_seconds, 900)
  t.equal(later["1"].attendance.over_time.present.length, 61)
  t.ok(later.all.attendance.over_time.present.length <= 121, "a date that is far off makes the steps long")
})
