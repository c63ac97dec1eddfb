/** `commitcast start` and the commands beside it, as a person types them. */

import type { AddressInfo } from "node:net"
import { createServer } from "node:net"
import t from "tap"
import { openClient } from "../helpers/client.ts"
import { finish, run, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { startProxy } from "../helpers/proxy.ts"
import { SECRET } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const READY = /^\{"event":"ready".*\}$/m
const readyOf = (match: RegExpMatchArray) => JSON.parse(match[0]) as { url: string; database_url?: string }

t.test(
  "from nothing: start, then a row inserted by query is tailed, and Ctrl-C ends all of it",
  async (t) => {
    const cwd = await workDirectory(t)
    const relay = run(t, cwd, ["start", "--port", "0"])
    const ready = readyOf(await relay.prints("ready", READY))
    t.match(ready.database_url, /^postgres:\/\//)
    t.match(relay.err(), `${ready.url}/#token=`, "the dashboard's link")
    t.match(relay.err(), /psql "postgres:\/\/.*insert into vote/)

    const token = (
      await finish(t, cwd, ["token", "--user", "7", "--committees", "7", "--expires", "1h"])
    ).out.trim()
    const client = await openClient(t, `${ready.url.replace("http", "ws")}/ws?token=${token}`)
    const tail = run(t, cwd, ["tail"])
    await tail.prints("connected", /connected/)
    const text = run(t, cwd, ["tail", "--format", "text"])
    await text.prints("connected", /connected/)
    const refused = await finish(t, cwd, ["tail", "--token", "none"])
    t.same([refused.code, refused.err], [1, "commitcast: closed with 4500: invalid token\n"], "said once")
    const filters = [
      ["--where", '{"votes":{"gt":42}}'],
      ["--actions", "delete"],
      ["--types", "message"],
    ]
    const others = filters.map((filter) => run(t, cwd, ["tail", ...filter]))
    for (const other of others) await other.prints("connected", /connected/)

    const inserted = await finish(t, cwd, [
      "query",
      "insert into vote (election_id, committee_id, candidate_id, votes) values (1, 7, 2, 42) returning id",
    ])
    t.match(inserted, { code: 0, out: '{"id":"1"}\n' })
    t.match((await client.count(1))[0], { type: "voting_update", data: { committee_id: 7, votes: 42 } })
    t.match(JSON.parse((await tail.prints("the change", /^\{.*"voting_update".*\}$/m))[0]), {
      action: "create",
    })
    await text.prints("the change", /voting_update +create .*votes=42/)
    await finish(t, cwd, ["query", "update vote set votes = 43"])
    await finish(t, cwd, ["query", "delete from vote"])
    await finish(t, cwd, ["query", "select relay.broadcast('election_updates', '1')"])
    for (const other of others) await other.prints("what is the last for it", /"delete"|"message"/)
    const shown = (lines: string) =>
      lines.match(/^\{.*\}$/gm)?.map((line) => JSON.parse(line).action ?? "message") ?? []
    await until("all of it", () => others.reduce((sum, other) => sum + shown(other.out()).length, 0) === 6)
    t.same(
      others.map((other) => shown(other.out())),
      [["create", "delete", "message"], ["delete", "message"], ["message"]],
      "each has what its filter lets pass",
    )

    const health = await fetch(`${ready.url}/api/utils/websocket/health/`, {
      headers: { authorization: `Bearer ${token}` },
    })
    t.equal(health.status, 403, "the token is not an admin's")

    relay.child.kill("SIGINT")
    t.equal(await relay.ended, 0)
    t.equal((await client.closed).code, 4000)
    t.equal((await finish(t, cwd, ["query", "select 1"])).code, 2, "the database is gone with it")
  },
)

t.test("a second start while one runs says so; after it, one finds the same data", async (t) => {
  const cwd = await workDirectory(t)
  const first = run(t, cwd, ["start", "--port", "0"])
  await first.prints("ready", READY)
  const second = await finish(t, cwd, ["start", "--port", "0"])
  t.equal(second.code, 2)
  t.match(second.err, String(first.child.pid), "names the process")
  await finish(t, cwd, ["query", "insert into vote (votes) values (5)"])
  first.child.kill("SIGTERM")
  t.equal(await first.ended, 0)
  const third = run(t, cwd, ["start", "--port", "0"])
  await third.prints("ready", READY)
  t.match((await finish(t, cwd, ["query", "select votes from vote"])).out, '{"votes":5}')
})

t.test(
  "with DATABASE_URL it installs there, takes settings from .env, and finds itself installed the next time",
  async (t) => {
    const db = await database(t, { empty: true })
    await db.query("create table vote (id int primary key, votes int)")
    const cwd = await workDirectory(t)
    const env = { DATABASE_URL: db.url, JWT_SECRET: SECRET, PORT: "0" }
    const first = run(t, cwd, ["start"], env)
    const ready = readyOf(await first.prints("ready", READY))
    t.equal(ready.database_url, undefined, "a foreign database's URL is not printed")
    t.notMatch(first.err() + first.out(), "tests@", "nor its password")
    t.match(first.err(), '"tracked":["vote"]')
    first.child.kill("SIGTERM")
    await first.ended
    const second = run(t, cwd, ["start"], env)
    await second.prints("ready", READY)
    t.notMatch(second.err(), "installed")
    t.match(await finish(t, cwd, ["install"], env), { code: 0, out: /nothing to do/ })
    t.match(await finish(t, cwd, ["untrack", "vote"], env), { code: 0, out: /not captured any more/ })
    t.match(await finish(t, cwd, ["track", "vote", "--type", "tally", "--exclude", "votes"], env), {
      code: 0,
      out: /captured: vote/,
    })
    t.match((await db.query("select type, columns from relay.tracked"))[0], {
      type: "tally",
      columns: ["id"],
    })
    second.child.kill("SIGTERM")
    await second.ended
    t.match(await finish(t, cwd, ["uninstall"], env), { code: 0, out: /removed/ })
    t.match(await finish(t, cwd, ["uninstall"], env), { code: 0, out: /nothing to do/ })
    t.same(await db.query("select 1 from pg_namespace where nspname = 'relay'"), [])
  },
)

t.test("a database that is down at the start is waited for: alive, not ready, then ready", async (t) => {
  const db = await database(t)
  const proxy = await startProxy(t, db.port)
  proxy.refuse()
  const cwd = await workDirectory(t)
  const relay = run(t, cwd, [
    "start",
    "--port",
    "0",
    "--jwt-secret",
    SECRET,
    "--database-url",
    db.url.replace(`:${db.port}/`, `:${proxy.port}/`),
  ])
  const [, url] = await relay.prints("HTTP", /"url":"(http[^"]+)"/)
  await relay.prints("an attempt", /database_down/)
  t.equal((await fetch(`${url}/health/live`)).status, 200)
  t.equal((await fetch(`${url}/health/ready`)).status, 503)
  proxy.heal()
  await relay.prints("ready", READY)
  t.equal((await fetch(`${url}/health/ready`)).status, 200)
})

t.test("a relay that is stopped before its database has answered touches it no more", async (t) => {
  const cwd = await workDirectory(t)
  const nowhere = "postgres://nobody@127.0.0.1:1/none"
  const relay = run(t, cwd, ["start", "--port", "0", "--jwt-secret", SECRET, "--database-url", nowhere])
  await relay.prints("an attempt", /database_down/)
  relay.child.kill("SIGTERM")
  t.equal(await relay.ended, 0, relay.err())
  t.notMatch(relay.err(), /canary_failed|chores_failed/)
})

t.test("what cannot work is one line that names it, and exit code 2", async (t) => {
  const db = await database(t)
  const cwd = await workDirectory(t)
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve))
  t.teardown(() => taken.close())
  const port = String((taken.address() as AddressInfo).port)
  const old = await startProxy(t, db.port, (data) =>
    Buffer.from(data.toString("latin1").replace(/180(\d{3})/, "130$1"), "latin1"),
  )
  const database_url = ["--database-url", db.url, "--jwt-secret", SECRET]
  const cases: Array<[name: string, args: string[], message: RegExp]> = [
    ["a setting of a wrong type", ["start", "--port", "http"], /PORT \(--port\) is wrong/],
    ["a short secret", ["start", "--jwt-secret", "short"], /JWT_SECRET .*32 bytes/],
    ["an unknown flag", ["start", "--prot", "1"], /unknown option '--prot'/],
    ["no key with a foreign database", ["start", "--database-url", db.url], /JWT_SECRET .* is missing/],
    ["a filter that is not JSON", ["tail", "--where", "votes > 42"], /--where .*must be JSON/],
    ["a taken port", ["start", "--port", port, ...database_url], new RegExp(`PORT .*${port} is taken`)],
    [
      "a wrong password",
      [
        "start",
        "--port",
        "0",
        "--database-url",
        db.url.replace(":tests@", ":wrong@"),
        "--jwt-secret",
        SECRET,
      ],
      /password authentication failed/,
    ],
    [
      "a database that is not there",
      ["start", "--port", "0", "--database-url", `${db.url}x`, "--jwt-secret", SECRET],
      /does not exist/,
    ],
    [
      "no URL",
      ["start", "--database-url", "localhost/db", "--jwt-secret", SECRET],
      /DATABASE_URL .*postgres:\/\//,
    ],
    [
      "an old PostgreSQL",
      [
        "start",
        "--port",
        "0",
        "--database-url",
        db.url.replace(`:${db.port}/`, `:${old.port}/`),
        "--jwt-secret",
        SECRET,
      ],
      /too old: 14 or newer/,
    ],
    ["a token without its relay", ["token", "--user", "1"], /.commitcast|start/],
    ["a wrong duration", ["token", "--user", "1", "--expires", "soon", "--jwt-secret", SECRET], /--expires/],
    ["a table that is not there", ["track", "nothing", "--database-url", db.url], /nothing/],
  ]
  for (const [name, args, message] of cases) {
    const { code, out, err } = await finish(t, cwd, args)
    t.equal(code, 2, name)
    t.match(err, message, name)
    t.equal(out, "", `${name}: nothing on standard output`)
    const lines = err
      .split("\n")
      .filter((line) => line.startsWith("commitcast:") || line.startsWith("error:"))
    t.equal(lines.length, 1, `${name}: one line`)
    t.notMatch(err, /\n\s+at /, `${name}: no stack`)
  }
})

t.test("help lists every command and every setting", async (t) => {
  const cwd = await workDirectory(t)
  const help = await finish(t, cwd, ["--help"])
  for (const command of [
    "start",
    "install",
    "uninstall",
    "track",
    "untrack",
    "sql",
    "query",
    "token",
    "tail",
  ])
    t.match(help.out, new RegExp(`^  ${command}`, "m"))
  t.equal(help.code, 0)
  const start = await finish(t, cwd, ["start", "--help"])
  for (const flag of ["--database-url", "--port", "--jwt-secret", "--allowed-origins", "--bell"])
    t.match(start.out, flag)
})

t.test("the printed SQL installs the relay", async (t) => {
  const db = await database(t, { empty: true })
  const cwd = await workDirectory(t)
  await db.query((await finish(t, cwd, ["sql"])).out)
  t.match(await finish(t, cwd, ["install", "--database-url", db.url]), { code: 0, out: /nothing to do/ })
})
