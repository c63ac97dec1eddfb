/** `commitcast doctor`: each thing that is wrong is found, with what to do, and gone once that is done. */

import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import pg from "pg"
import t from "tap"
import { doctor } from "../../cli/commands/doctor.ts"
import type { Finding } from "../../cli/doctor/finding.ts"
import type { RelayAddress } from "../../cli/doctor/relay.ts"
import { freePort } from "../../cli/embedded/port.ts"
import { readSettings } from "../../relay/config.ts"
import { execSql, ownCluster } from "../helpers/cluster.ts"
import { finish, run, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { fakedBy, NO_FAKETIME } from "../helpers/faketime.ts"
import { role } from "../helpers/log.ts"
import { startProxy } from "../helpers/proxy.ts"
import { SECRET, startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

interface Examined {
  healthy: boolean
  findings: Finding[]
  /** Those that are not ok, without the words. */
  wrong: string[]
}

async function examine(
  databaseUrl: string,
  { relay, longSeconds = 600 }: { relay?: RelayAddress; longSeconds?: number } = {},
): Promise<Examined> {
  let text = ""
  const settings = readSettings({ DATABASE_URL: databaseUrl, JWT_SECRET: SECRET })
  const print = (line: string) => {
    text += `${line}\n`
  }
  const healthy = await doctor({ settings, relay, longSeconds, json: true, coloured: false, print })
  const found = JSON.parse(text) as Omit<Examined, "wrong">
  if (found.healthy !== healthy) throw new Error("the answer is not what is printed")
  const wrong = found.findings.filter(({ verdict }) => verdict !== "ok")
  return { ...found, wrong: wrong.map(({ of, verdict }) => `${of} ${verdict}`) }
}

t.test("where all is well it says so, of everything", async (t) => {
  const db = await database(t)
  await db.query(
    "select relay.define_derived('dashboard_update', 'dashboard_statistics', '{guarantee,attendance,vote}')",
  )
  const { healthy, findings } = await examine(db.url)
  t.ok(healthy)
  t.same([...new Set(findings.map(({ verdict }) => verdict))], ["ok"])
  t.same(
    [...new Set(findings.map(({ of }) => of))],
    [
      "database",
      "bell",
      "clock",
      "queue",
      "sessions",
      "transactions",
      "schema",
      "rights",
      "log",
      "tables",
      "writers",
      "derived",
    ],
  )
})

/** What makes a database sick, and what is found then. The remedy, where it is SQL, is what makes it well again. */
const ILLNESSES: Array<[sql: string, wrong: string, text: RegExp, cure: string | undefined]> = [
  ["select relay.pause()", "log failure", /the capture is paused/, undefined],
  [
    `do $$ begin execute (select format('alter table vote disable trigger %I', tgname) from pg_trigger where tgrelid = 'vote'::regclass and tgname ~ '^000_relay_insert'); end $$`,
    "tables failure",
    /^public.vote: its trigger "000_relay_insert_\d+" is disabled on public.vote/,
    "select relay.track('vote')",
  ],
  [
    "alter table vote add column late int",
    "tables warning",
    /^public.vote: late came later/,
    "select relay.track('vote')",
  ],
  [
    "alter table vote enable row level security",
    "tables warning",
    /row level security, which the relay does not apply/,
    "alter table vote disable row level security",
  ],
  [
    "alter role writer in database $name set relay.bulk_load = 'on'",
    "writers failure",
    /^relay.bulk_load is on for writer in t_\w+: what they write is not told/,
    undefined,
  ],
  [
    "alter database $name set relay.bulk_load = summary",
    "writers failure",
    /^relay.bulk_load is summary for everybody in t_/,
    undefined,
  ],
  [
    `alter database $name set session_replication_role = replica;
     do $$ begin execute (select format('alter table vote enable trigger %I', tgname) from pg_trigger where tgrelid = 'vote'::regclass and tgname ~ '^000_relay_insert'); end $$`,
    "writers failure",
    /^session_replication_role is replica for everybody/,
    undefined,
  ],
  [
    "select relay.define_derived('t', 'pg_backend_pid', '{vote}'); update relay.derived set function = 'public.gone'",
    "derived failure",
    /^the function public.gone of t is gone/,
    "select relay.drop_derived('t')",
  ],
  [
    "select relay.untrack('vote'), relay.untrack('guarantee'), relay.untrack('attendance')",
    "tables failure",
    /^none is tracked/,
    "select relay.track('vote')",
  ],
  [
    "update relay.horizon set rotated_at = now() - interval '30 hours'",
    "log warning",
    /rotated 30.0 hours ago/,
    "select relay.rotate('1 hour', 1000000000)",
  ],
]

t.test("each thing that is wrong is found alone, and gone when the remedy is taken", async (t) => {
  const db = await database(t)
  const superuser = await db.session(db.superuserUrl)
  for (const [sql, wrong, text, cure] of ILLNESSES) {
    await superuser.query(sql.replace("$name", db.name))
    const { findings, wrong: found, healthy } = await examine(db.url)
    t.same([...new Set(found)], [wrong], sql)
    t.equal(healthy, wrong.endsWith("warning"))
    const finding = findings.find(({ verdict }) => verdict !== "ok")
    t.match(finding?.text, text)
    t.ok((finding?.remedy ?? "").length > 10, `-> ${finding?.remedy}`)
    await superuser.query(cure ?? finding?.remedy?.split("; ")[0] ?? "")
    t.same((await examine(db.url)).wrong, [], "well again")
  }
})

t.test("a role that lacks any of what a relay needs is told of just that", async (t) => {
  const db = await database(t)
  const url = await role(t, db, "relay")
  const name = new URL(url).username
  t.match(await examine(url), { healthy: false, wrong: ["schema failure"] })
  await db.query(`select relay.admit_relay('${name}')`)
  t.same((await examine(url)).wrong, [])
  const [admit] = await db.query<{ source: string }>(
    "select prosrc as source from pg_proc where oid = 'relay.admit_relay'::regproc",
  )
  const grants = [
    ...(admit?.source ?? "").matchAll(/'grant (select|execute) on (sequence|function)?(.+) to %I'/g),
  ]
  const granted = grants.flatMap(([, right, kind = "table", names = ""]) =>
    names.split(/, (?=relay\.)/).map((each) => ({ right, kind, of: each.trim() })),
  )
  t.ok(granted.length > 20)
  for (const { right, kind, of } of granted.filter(({ of }) => of !== "relay.migration")) {
    await db.query(`revoke ${right} on ${kind} ${of} from ${name}`)
    const { findings } = await examine(url)
    const finding = findings.find((finding) => finding.of === "rights")
    t.equal(finding?.text, `the role ${name} may not use ${of}`)
    t.equal(finding?.remedy, `As the owner of the schema relay: select relay.admit_relay('${name}').`)
    await db.query(`grant ${right} on ${kind} ${of} to ${name}`)
  }
  t.match(await examine(db.superuserUrl), { healthy: true, wrong: ["rights warning"] })
})

t.test("a database that cannot be used is the one finding", async (t) => {
  const [db, empty] = [await database(t), await database(t, { empty: true })]
  const cases: Array<[url: string, of: string, text: RegExp]> = [
    [empty.url, "schema", /not installed in this database/],
    [`postgres://x@127.0.0.1:${await freePort()}/x`, "database", /does not answer/],
    [db.url.replace(/:[^:@/]+@/, ":wrong@"), "database", /password authentication failed/],
    [db.url.replace(db.name, "no_such_database"), "database", /does not exist/],
  ]
  for (const [url, of, text] of cases) {
    const { findings, wrong, healthy } = await examine(url)
    t.same(wrong, [`${of} failure`])
    t.notOk(healthy)
    t.match(findings.at(-1)?.text, text)
    t.ok(findings.at(-1)?.remedy)
  }
  await db.query("insert into relay.migration (version, name, hash) values (9999, '9999_newer.sql', '')")
  t.match((await examine(db.url)).findings.at(-1), { of: "schema", text: /is newer \(9999_newer.sql\)/ })
})

t.test("a line that drops notifications is found, though all else passes", async (t) => {
  const db = await database(t)
  const proxy = await startProxy(t, db.port, (data) =>
    data.includes("commitcast_doctor") ? data.subarray(0, 0) : data,
  )
  const { wrong } = await examine(db.url.replace(`:${db.port}/`, `:${proxy.port}/`))
  t.same(wrong, ["bell failure"])
})

t.test("transactions that stay open, a subscription, and a server that is full", async (t) => {
  const cluster = await ownCluster(t, {
    max_prepared_transactions: 2,
    max_connections: 20,
    superuser_reserved_connections: 0,
    wal_level: "logical",
  })
  await execSql(
    cluster.url,
    "set relay.bell = 'off'",
    "begin",
    "insert into vote default values",
    "prepare transaction 'forgotten'",
  )
  const open = new pg.Client({ connectionString: cluster.url })
  open.on("error", () => {})
  await open.connect()
  t.teardown(() => open.end())
  await open.query("begin; insert into vote default values")
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.same((await examine(cluster.url)).wrong, [], "not yet long")
  const { findings, wrong } = await examine(cluster.url, { longSeconds: 0.01 })
  t.same(wrong, ["transactions warning", "transactions warning"])
  t.match(
    findings.filter(({ of }) => of === "transactions").map(({ text }) => text),
    [/^session \d+ of app has written/, /^'forgotten' is prepared since/],
  )
  await open.query("rollback")
  await execSql(cluster.url, "rollback prepared 'forgotten'")

  const crowd = Array.from({ length: 17 }, () => new pg.Client({ connectionString: cluster.url }))
  for (const client of crowd) await client.connect()
  t.same((await examine(cluster.url)).wrong, ["sessions warning"])
  for (const client of crowd) await client.end()

  const superuser = cluster.superuserUrl.replace(/\/\w+$/, "/election")
  const source = cluster.superuserUrl.replace(/\/\w+$/, "/source")
  await execSql(superuser, "create database source")
  await execSql(
    source,
    "create table vote (id bigint primary key)",
    "create publication p for table vote",
    "select pg_create_logical_replication_slot('s', 'pgoutput')",
  )
  await execSql(
    superuser,
    `create subscription s connection '${source}' publication p with (create_slot = false, slot_name = 's', copy_data = false)`,
  )
  t.same((await examine(cluster.url)).wrong, [], "triggers of ours fire always")
  await execSql(superuser, "alter table vote enable trigger user")
  t.same((await examine(cluster.url)).wrong, ["tables failure"])
  await execSql(superuser, "select relay.track('vote')")
  t.same((await examine(cluster.url)).wrong, [])
  const applied = async () =>
    (
      await execSql<{ op: string }>(
        cluster.url,
        "select op from relay.change where new like '%4711%' or op = 'truncate' order by change.seq",
      )
    )
      .map(({ op }) => op)
      .join()
  await execSql(source, "insert into vote values (4711)", "truncate vote")
  await until("what was applied is captured", async () => (await applied()) === "insert,truncate")
  await execSql(
    superuser,
    "alter subscription s disable",
    "alter subscription s set (slot_name = none)",
    "drop subscription s",
  )
})

t.test("a relay is asked too: ready or not, its problems, and whether it is there", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db)
  const admin = token({ role: "admin" })
  const well = await examine(db.url, { relay: { url: relay.url, token: admin } })
  t.same(well.wrong, [])
  t.match(well.findings.at(-1)?.text, /^version .+; 0 connections of 0 users; \d.\d s behind$/)
  t.same((await examine(db.url, { relay: { url: relay.url, token: token() } })).wrong, ["relay warning"])
  await db.query(`create function total() returns json language sql stable as $$ select '1'::json $$;
    select relay.define_derived('total', 'total', '{vote}', min_interval => '100 ms', max_age => '100 ms');
    create or replace function total() returns json language sql stable as $$ select (1 / 0)::text::json $$`)
  let wrong: string[] = []
  await until("the relay's problem is told", async () => {
    const examined = await examine(db.url, { relay: { url: relay.url, token: admin } })
    wrong = examined.wrong
    return examined.findings.some(({ of, text }) => of === "relay" && /total/.test(text))
  })
  t.same(wrong, ["relay failure"])
  await relay.stop()
  const { wrong: then } = await examine(db.url, { relay: { url: relay.url, token: admin } })
  t.same(then, ["relay failure"])
})

t.test("a clock that is off is found", { skip: NO_FAKETIME }, async (t) => {
  const db = await database(t)
  const cwd = await workDirectory(t)
  const file = join(cwd, "clock")
  const env = { DATABASE_URL: db.url, JWT_SECRET: SECRET, ...fakedBy(file) }
  for (const [offset, text] of [
    ["+30", /the server's clock is (29\.\d|30\.\d) s behind this machine's/],
    ["-30", /the server's clock is (29\.\d|30\.\d) s ahead of this machine's/],
  ] as const) {
    await writeFile(file, offset)
    const { out, code } = await finish(t, cwd, ["doctor"], env)
    t.match(out, text)
    t.match(out, /0 failures, 1 warning\.\n$/)
    t.equal(code, 0)
  }
})

t.test("as a command: lines for people, JSON for programs, and an exit code", async (t) => {
  const cwd = await workDirectory(t)
  const relay = run(t, cwd, ["start", "--port", "0"])
  await relay.prints("ready", /"event":"ready"/)
  const well = await finish(t, cwd, ["doctor"])
  t.equal(well.code, 0, well.err)
  t.match(well.out, /^ok +database +PostgreSQL 18/)
  t.match(well.out, /ok +relay +ready at http/)
  t.match(well.out, /\nAll is well\.\n$/)
  await finish(t, cwd, ["untrack", "vote"])
  await finish(t, cwd, ["query", "select relay.pause()"])
  const ill = await finish(t, cwd, ["doctor"])
  t.equal(ill.code, 1)
  t.match(ill.out, /\nfailure +log +the capture is paused: nothing is told\n +-> select relay.resume\(\)\n/)
  const json = JSON.parse((await finish(t, cwd, ["doctor", "--json"])).out)
  t.match(json, { healthy: false })
  const nowhere = await finish(t, await workDirectory(t), ["doctor"])
  t.equal(nowhere.code, 1)
  t.match(nowhere.out, /failure +database +DATABASE_URL is not set/)
  const wrong = await finish(t, cwd, ["doctor", "--retention-hours", "never"])
  t.equal(wrong.code, 2)
  t.match(wrong.err, /^commitcast: RETENTION_HOURS/)
})

t.test("docs/OPERATIONS.md has all that it looks at", async (t) => {
  const text = await readFile(fileURLToPath(import.meta.resolve("#root/docs/OPERATIONS.md")), "utf8")
  const db = await database(t)
  const { findings } = await examine(db.url)
  for (const of of new Set(findings.map((finding) => finding.of))) t.match(text, new RegExp(`\\| \`${of}\``))
})
