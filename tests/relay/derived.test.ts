/** Derived messages: numbers that stay current, for those who may see all that is in them. */

import t, { type Test } from "tap"
import { DerivedMessage } from "../../relay/protocol/server-message.ts"
import type { Client, Received } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { metricOf, startPatientRelay, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** What the tests derive: how many entries there are and their sum, of all and of each election. */
const TOTALS = `
  create function totals() returns table (id int, data json) language sql as $$
    select election_id, json_build_object('entries', count(*), 'votes', coalesce(sum(votes), 0))
    from vote group by rollup (election_id) having election_id is not null or grouping(election_id) = 1 $$;`

async function start(t: Test, { more = "", define = `'totals', 'totals', '{vote}'` } = {}) {
  const db = await database(t)
  await db.query(`${TOTALS} ${more}; select relay.define_derived(${define})`)
  return { db, relay: await startRelay(t, db) }
}

const derived = ({ messages }: Client): Received[] =>
  messages.filter((message) => !("tx" in message) && "data" in message)

const figure = (client: Client, channel: string, fields: Record<string, unknown>) =>
  client.first(`${channel} with ${JSON.stringify(fields)}`, (message) => {
    const { data } = message
    return (
      message.channel === channel &&
      data !== undefined &&
      Object.entries(fields).every(([name, value]) => data[name] === value)
    )
  })

const runs = (relay: TestRelay, result: string, type = "totals") =>
  metricOf(relay, "relay_derived_total", `type="${type}",result="${result}"`)

async function report(relay: TestRelay): Promise<Record<string, unknown>> {
  const answer = await fetch(`${relay.url}/api/utils/websocket/health/`, {
    headers: { authorization: `Bearer ${token({ role: "admin" })}` },
  })
  return (await answer.json()) as Record<string, unknown>
}

t.test("whoever subscribes has the latest value at once, and then each that differs", async (t) => {
  const { db, relay } = await start(t)
  await db.query("insert into vote (election_id, votes) values (1, 5)")
  const early = await relay.connect({}, "?channels=dashboard,dashboard:1")
  await figure(early, "dashboard", { votes: 5 })
  const client = await relay.connect({}, "?channels=dashboard")
  await figure(client, "dashboard", { entries: 1, votes: 5 })
  t.same(derived(client).length, 1, "the value that stands, and none that stood before")
  await db.query("insert into vote (election_id, votes) values (1, 2)")
  const message = await figure(client, "dashboard", { entries: 2, votes: 7 })
  t.same(Object.keys(message), ["type", "channel", "at", "data"])
  t.equal(message.type, "totals")
  await figure(early, "dashboard:1", { votes: 7 })
  const late = await relay.connect()
  late.send({ type: "subscribe", channels: ["dashboard:1"], request: 1 })
  await figure(late, "dashboard:1", { votes: 7 })
  t.same(
    late.messages.map(({ type }) => type).filter((type) => type !== "checkpoint"),
    ["connection_success", "subscribed", "totals"],
    "the answer comes first",
  )
  for (const received of [...derived(early), ...derived(client)]) DerivedMessage.parse(received)
})

t.test("who comes back with a cursor, good or not, is greeted before the first value", async (t) => {
  const { relay } = await start(t)
  const first = await relay.connect({}, "?channels=dashboard")
  await figure(first, "dashboard", { entries: 0 })
  for (const cursor of [String(first.messages[0]?.cursor), "nonsense"]) {
    const client = await relay.open(`/ws?channels=dashboard&cursor=${cursor}`, {
      headers: { authorization: `Bearer ${token()}` },
    })
    await figure(client, "dashboard", { entries: 0 })
    t.equal(client.messages[0]?.type, "connection_success", cursor)
  }
})

t.test("a function is never run twice at once, and ends at what the tables hold", async (t) => {
  const { db, relay } = await start(t, {
    more: `
      create function alone() returns json language plpgsql as $$
      begin
        if not pg_try_advisory_xact_lock(4711) then
          raise exception 'twice at once';
        end if;
        perform pg_sleep(0.05);
        return (select json_build_object('entries', count(*)) from vote);
      end $$`,
    define: `'alone', 'alone', '{vote}', min_interval => '100 milliseconds'`,
  })
  const client = await relay.connect({}, "?channels=dashboard")
  const writers = await Promise.all(Array.from({ length: 4 }, () => db.session()))
  await Promise.all(
    writers.map(async (writer) => {
      for (let i = 0; i < 100; i++) await writer.query("insert into vote (votes) values (1)")
    }),
  )
  await figure(client, "dashboard", { entries: 400 })
  t.equal(await runs(relay, "failed", "alone"), 0)
  const done = await runs(relay, "done", "alone")
  t.ok(done < 400, `${done} runs for 400 commits`)
  const values = derived(client).map(({ data }) => Number(data?.entries))
  t.same(
    values,
    [...new Set(values)].sort((a, b) => a - b),
    "each value once, and never an older one",
  )
})

t.test("a value that does not differ is not sent again", async (t) => {
  const { db, relay } = await start(t, {
    define: `'totals', 'totals', '{vote}', min_interval => '100 milliseconds'`,
  })
  const client = await relay.connect({}, "?channels=dashboard")
  await figure(client, "dashboard", { entries: 0 })
  await db.query("insert into vote (votes) values (3)")
  await figure(client, "dashboard", { votes: 3 })
  const before = await runs(relay, "done")
  await db.query("update vote set status = 'verified'")
  await until("it was computed again", async () => (await runs(relay, "done")) > before)
  await db.query("insert into vote (votes) values (4)")
  await figure(client, "dashboard", { votes: 7 })
  t.same(
    derived(client).map(({ data }) => data?.votes),
    [0, 3, 7],
  )
})

t.test("a function does not run while its tables are left alone", async (t) => {
  const { db, relay } = await start(t, {
    more: "select relay.define_derived('restless', 'totals', '{vote}', min_interval => '100 milliseconds', max_age => '100 milliseconds')",
    define: `'totals', 'totals', '{vote}', min_interval => '100 milliseconds', max_age => '1 day'`,
  })
  const client = await relay.connect({}, "?channels=dashboard")
  await db.query("insert into vote (votes) values (3)")
  await client.first("the total", ({ type, data }) => type === "totals" && data?.votes === 3)
  // It may have run once more since: a run can see a commit before the feed does.
  await until("it rests", async () => {
    const before = await runs(relay, "done")
    const restless = await runs(relay, "done", "restless")
    await db.query("insert into guarantee default values")
    await until("another runs often", async () => (await runs(relay, "done", "restless")) > restless + 10)
    return (await runs(relay, "done")) === before
  })
  t.pass()
})

t.test("a bulk load under the flag, which shows in no log, shows up after max_age", async (t) => {
  const { db, relay } = await start(t, { define: `'totals', 'totals', '{vote}', max_age => '1 second'` })
  const client = await relay.connect({}, "?channels=dashboard")
  await db.query("insert into vote (votes) values (5)")
  // From now on nothing but its age lets it be computed again.
  await figure(client, "dashboard", { votes: 5 })
  await db.query("begin; set local relay.bulk_load = 'on'; insert into vote (votes) values (9); commit")
  await figure(client, "dashboard", { votes: 14 })
  t.same(client.changes(), [])
})

t.test("a value whose id is gone is no more told, a definition that is dropped neither", async (t) => {
  const { db, relay } = await start(t, {
    define: `'totals', 'totals', '{vote}', min_interval => '100 milliseconds'`,
  })
  await db.query("insert into vote (election_id, votes) values (1, 1)")
  const watching = await relay.connect({}, "?channels=dashboard,dashboard:1")
  await figure(watching, "dashboard:1", { entries: 1 })
  await db.query("delete from vote; insert into vote (votes) values (7)")
  await figure(watching, "dashboard", { votes: 7 })
  const client = await relay.connect({}, "?channels=dashboard,dashboard:1")
  await figure(client, "dashboard", { votes: 7 })
  t.same(
    derived(client).map(({ channel }) => channel),
    ["dashboard"],
  )
  await db.query("select relay.drop_derived('totals')")
  await until("it is let go", async () => ((await report(relay)).derived as unknown[]).length === 0)
  const after = await relay.connect({}, "?channels=dashboard,dashboard:1")
  after.send({ type: "ping", request: 1 })
  await after.first("a pong", ({ request }) => request === 1)
  t.same(derived(after), [])
})

t.test("what fails or takes too long is told to operations, and harms nothing else", async (t) => {
  const { db, relay } = await start(t, {
    more: `
      create table switch (fails boolean);
      insert into switch values (true);
      create function fragile() returns json language plpgsql as $$
      begin
        if (select fails from switch) then raise exception 'secret: %', (select max(votes) from vote); end if;
        return '{"works": true}';
      end $$;
      create function slow() returns json language sql as $$ select '{}'::json from pg_sleep(60) where exists (select from switch where fails) $$;
      update switch set fails = false;
      select relay.define_derived('fragile', 'fragile', '{vote}'), relay.define_derived('slow', 'slow', '{vote}');
      update switch set fails = true`,
  })
  const client = await relay.connect({}, "?channels=dashboard,election_updates")
  await db.query("insert into vote (votes) values (31415)")
  await client.count(1)
  await figure(client, "dashboard", { votes: 31_415 })
  await until(
    "both have failed",
    async () => (await runs(relay, "failed", "fragile")) > 0 && (await runs(relay, "failed", "slow")) > 0,
  )
  const found = await report(relay)
  t.equal(found.status, "degraded")
  t.match(found.problems, [
    /fragile of dashboard cannot be computed: PostgreSQL refused it \(P0001\)/,
    /slow of dashboard cannot be computed: it took more than 5 s/,
  ])
  t.equal((await fetch(`${relay.url}/health/ready`)).status, 200, "changes arrive all the same")
  t.notMatch(JSON.stringify([found, relay.lines]), /31415|secret/, "no row data in the report or the log")
  await db.query("update switch set fails = false; insert into vote (votes) values (1)")
  await figure(client, "dashboard", { works: true })
  await until("all is well", async () => (await report(relay)).status === "ok")
})

t.test("a function that writes, or returns what cannot be sent, is refused", async (t) => {
  const { relay } = await start(t, {
    more: `
      create table switch (fails boolean);
      insert into switch values (false);
      create function writes() returns json language plpgsql as $$
      begin
        if (select fails from switch) then insert into vote default values; end if;
        return '{}';
      end $$;
      create function names() returns table (id text, data json) language sql as $$ select 'a b', '1'::json from switch where fails $$;
      create function large() returns json language sql as $$ select to_json(repeat('x', 300000)) from switch where fails $$;
      create function many() returns table (id int, data json) language sql as $$ select n, '1'::json from generate_series(1, 1001) n, switch where fails $$;
      select relay.define_derived(f, f::regproc, '{vote}') from unnest('{writes,names,large,many}'::text[]) f;
      update switch set fails = true`,
  })
  await until("all have failed", async () => {
    const counts = ["writes", "names", "large", "many"].map((type) => runs(relay, "failed", type))
    return (await Promise.all(counts)).every((count) => count > 0)
  })
  t.match((await report(relay)).problems, [
    /writes .* \(25006\)/,
    /names .* an id that no channel can have/,
    /large .* more than 262144 characters/,
    /many .* more than 1000 values/,
  ])
})

t.test("who does not read is owed the latest value only, however many there were", async (t) => {
  const db = await database(t)
  await db.query(`
    create function large() returns json language sql as $$
      select json_build_object('entries', count(*), 'filling', repeat('x', 200000)) from vote $$;
    select relay.define_derived('large', 'large', '{vote}', min_interval => '100 milliseconds')`)
  const relay = await startPatientRelay(t, db)
  const stopped = await relay.connect({ sub: "8" }, "?channels=dashboard")
  const reading = await relay.connect({}, "?channels=dashboard")
  stopped.socket.pause()
  const LAST = 60
  for (let entries = 1; entries <= LAST; entries++) {
    await db.query("insert into vote default values")
    await figure(reading, "dashboard", { entries })
  }
  t.equal(relay.relay.status().hub.connections, 2, "nobody is closed for it")
  stopped.socket.resume()
  await figure(stopped, "dashboard", { entries: LAST })
  t.ok(derived(stopped).length < LAST, `${derived(stopped).length} of ${LAST} values`)
})

t.test("who does not read is not owed a whole board either", async (t) => {
  const VALUES = 300
  const db = await database(t)
  await db.query(`
    create function board() returns table (id int, data json) language sql as $$
      select n, json_build_object('entries', (select count(*) from vote), 'filling', repeat('x', 100000))
      from generate_series(1, ${VALUES}) n $$;
    select relay.define_derived('board', 'board', '{vote}', 'committee', min_interval => '100 milliseconds')`)
  const relay = await startPatientRelay(t, db)
  const stopped = await relay.connect({ sub: "8" }, "?channels=dashboard")
  const reading = await relay.connect()
  const has = (client: Client, entries: number) =>
    derived(client).filter(({ data }) => data?.entries === entries)
  await until("the reader has all", () => has(reading, 0).length === VALUES)
  stopped.socket.pause()
  stopped.send({ type: "subscribe", channels: ["election_updates"] })
  await until("it is subscribed", () => relay.relay.status().hub.channels.election_updates === 2)
  await db.query("insert into vote default values")
  await until("the reader has all anew", () => has(reading, 1).length === VALUES)
  stopped.socket.resume()
  await until("the other has all of what stands", () => has(stopped, 1).length === VALUES)
  t.ok(has(stopped, 0).length < VALUES, `${has(stopped, 0).length} that were overtaken`)
})

t.test("only those are told who may see all that is in a number", async (t) => {
  const { db, relay } = await start(t, {
    more: "select relay.define_derived('results', 'totals', '{vote}', 'election', action => 'results'), relay.define_derived('turnout', 'totals', '{vote}', 'committee')",
  })
  await db.query(
    "insert into election (name) values ('Second'); insert into vote (election_id, votes) values (1, 1), (2, 2)",
  )
  const everything = await relay.connect({}, "?channels=election_updates,dashboard,dashboard:1,dashboard:2")
  for (const channel of ["dashboard:2", "election:2", "committee:2"])
    await figure(everything, channel, { votes: 2 })
  const cases: Array<[claims: Record<string, unknown>, channels: string, sees: string[]]> = [
    [{}, "election_updates", ["committee:1", "committee:2", "election:1", "election:2"]],
    [{}, "election:1", ["election:1"]],
    [{}, "dashboard", ["dashboard"]],
    [{ elections: [1] }, "election_updates", ["election:1"]],
    [{ elections: [1] }, "dashboard:1", ["dashboard:1"]],
    [{ committees: [1] }, "election_updates", ["committee:1"]],
    [{ committees: [1] }, "election:1", []],
    [{ committees: [1], elections: [1] }, "election_updates", []],
    [{ channels: ["dashboard"] }, "dashboard", ["dashboard"]],
    [{ channels: ["election:2"] }, "election_updates", ["election:2"]],
    [{ channels: [] }, "election_updates", []],
  ]
  for (const [claims, channels, sees] of cases) {
    const client = await relay.connect(claims, `?channels=${channels}`)
    client.send({ type: "ping", request: 1 })
    await client.first("a pong", ({ request }) => request === 1)
    t.same(
      [...new Set(derived(client).map(({ channel }) => channel))].sort(),
      sees,
      `${JSON.stringify(claims)} on ${channels}`,
    )
  }
  for (const [claims, channel] of [
    [{ elections: [1] }, "dashboard"],
    [{ elections: [1] }, "dashboard:2"],
    [{ committees: [1] }, "dashboard:1"],
    [{ channels: ["dashboard:1"] }, "dashboard"],
  ] as const) {
    const client = await relay.open(`/ws?channels=${channel}`, {
      headers: { authorization: `Bearer ${token(claims)}` },
    })
    t.match(await client.closed, { code: 4507 }, `${JSON.stringify(claims)} may not join ${channel}`)
  }
})

t.test("a renewal with fewer rights ends what they do not allow; a filter by type chooses", async (t) => {
  const { db, relay } = await start(t, {
    more: "select relay.define_derived('results', 'totals', '{vote}', 'election', action => 'results')",
    define: `'totals', 'totals', '{vote}', min_interval => '100 milliseconds'`,
  })
  const client = await relay.connect({}, "?channels=election_updates,dashboard")
  const choosy = await relay.connect({ sub: "8" }, "?channels=election_updates,dashboard&types=results")
  await figure(client, "dashboard", { entries: 0 })
  client.send({ type: "authenticate", token: token({ committees: ["1"] }), request: 1 })
  await client.first("the answer", ({ request }) => request === 1)
  const told = derived(client).length
  const witness = await relay.connect({ sub: "9" }, "?channels=dashboard")
  await db.query("insert into vote (election_id, committee_id, votes) values (1, 1, 5)")
  await figure(witness, "dashboard", { votes: 5 })
  await client.count(1)
  await figure(choosy, "election:1", { votes: 5 })
  t.equal(derived(client).length, told)
  t.same([...new Set(derived(choosy).map(({ type }) => type))], ["results"])
})

t.test("numbers go on after the database's sessions are lost, on every relay", async (t) => {
  const { db, relay } = await start(t)
  const other = await startRelay(t, db)
  const clients = [
    await relay.connect({}, "?channels=dashboard"),
    await other.connect({}, "?channels=dashboard"),
  ]
  for (const client of clients) await figure(client, "dashboard", { entries: 0 })
  await db.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'commitcast%'",
  )
  await db.query("insert into vote (votes) values (6)")
  for (const client of clients) await figure(client, "dashboard", { votes: 6 })
  t.pass()
})
