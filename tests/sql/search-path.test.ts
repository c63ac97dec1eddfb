/** The search_path of our sessions: pinned from the first statement on, and the role's own where a person names a table. */

import t from "tap"
import { doctor } from "../../cli/commands/doctor.ts"
import { query } from "../../cli/commands/query.ts"
import { connect } from "../../cli/schema/database.ts"
import { install, uninstall } from "../../cli/schema/install.ts"
import { track, untrack } from "../../cli/schema/track.ts"
import { readSettings } from "../../relay/config.ts"
import { openDatabase } from "../../relay/lib/database.ts"
import { PIN, PIN_TRANSACTION, PinnedClient } from "../../relay/lib/pinned-client.ts"
import { execSql, noBinaries, ownCluster } from "../helpers/cluster.ts"
import { finish, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { missing, refusal, VERSIONS } from "../helpers/log.ts"
import { startRelay } from "../helpers/relay.ts"
import { LOGGED, readServerLog, statementsBySession } from "../helpers/server-log.ts"

const PINNED = "pg_catalog, pg_temp"

async function pinned(url: string): Promise<PinnedClient> {
  const through = openDatabase(url)
  return new PinnedClient(await through.dial("test"), through)
}

for (const version of VERSIONS)
  t.test(
    `on PostgreSQL ${version} every session of every program begins with the pin`,
    { skip: noBinaries(version) },
    async (t) => {
      const cluster = await ownCluster(t, LOGGED, version)
      const { url } = cluster
      await execSql(
        url,
        "select relay.define_derived('dashboard_update', 'dashboard_statistics', '{vote}')",
        "create table parts (id int primary key)",
      )
      const relay = await startRelay(t, cluster, { CANARY_SECONDS: "60" })
      const client = await relay.connect({}, "?channels=election_updates,dashboard")
      await execSql(url, "insert into vote (votes) values (1)")
      await client.first("the change", ({ type }) => type === "voting_update")
      await client.first("the derived value", ({ type }) => type === "dashboard_update")
      await track(url, "parts", {})
      await doctor({
        settings: readSettings({ DATABASE_URL: url }),
        longSeconds: 600,
        relay: undefined,
        json: true,
        coloured: false,
        print: () => {},
      })
      await query(url, "select 1", () => {})
      await untrack(url, "parts")
      await relay.stop()
      await uninstall(url)
      await install(url)
      await execSql(url, "select 'the end'")

      const sessions = statementsBySession(await readServerLog(cluster, "the end"), /^commitcast/)
      t.ok(sessions.size >= 12, `${sessions.size} sessions`)
      const first = [...sessions.values()].map(([statement]) => statement)
      t.strictSame([...new Set(first)].sort(), [PIN_TRANSACTION, PIN].sort())
      const names = new Set(
        (await readServerLog(cluster, "the end")).map((entry) => entry.application_name ?? ""),
      )
      for (const name of ["commitcast", "commitcast feed", "commitcast listener", "commitcast derived"])
        t.ok(names.has(name), name)
    },
  )

for (const version of VERSIONS)
  t.test(`on PostgreSQL ${version}`, { skip: missing(version) }, async (t) => {
    t.test("a pinned client is pinned when it is connected, and a refusal rejects as ever", async (t) => {
      const db = await database(t, { version })
      const client = await pinned(db.url)
      await client.connect()
      t.same((await client.query("show search_path")).rows, [{ search_path: PINNED }])
      await client.end()
      const nowhere = await pinned(db.url.replace(db.name, "nowhere"))
      t.match(await refusal(nowhere.connect()), { code: "3D000" })
    })

    t.test("a command's session is pinned, whatever its role and database have set", async (t) => {
      const db = await database(t, { version })
      await db.query(`alter database ${db.name} set search_path = public, pg_catalog`)
      const client = await connect(db.url)
      t.teardown(() => client.end())
      t.same((await client.query("show search_path")).rows, [{ search_path: PINNED }])
    })

    t.test("people name tables by their role's own search_path", async (t) => {
      const db = await database(t, { version, empty: true })
      await db.query(`
        create schema app; create table app.vote (id int primary key); create table app.parts (id int primary key);
        create function app.election_results() returns json language sql as 'select to_json(count(*)) from vote';
        alter database ${db.name} set search_path = app, pg_catalog`)
      t.match(await install(db.url), { state: "installed", tracked: ["vote"], warnings: [] })
      await track(db.url, "parts", { type: "part_update" })
      t.same(await db.query("select name from relay.tracked order by 1"), [
        { name: "app.parts" },
        { name: "app.vote" },
      ])
      t.same(await db.query("select function from relay.derived"), [{ function: "app.election_results" }])
      t.match(await refusal(track(db.url, "nothing", {})), { message: 'relation "nothing" does not exist' })
      t.equal(await untrack(db.url, "parts"), true)
      const lines: string[] = []
      await query(db.url, "select count(*)::int as n from parts", (line) => lines.push(line))
      t.strictSame(lines, ['{"n":0}'])
    })
  })

t.test("the SQL for a DBA begins with the pin, from any version on", async (t) => {
  const cwd = await workDirectory(t)
  for (const args of [["sql"], ["sql", "--from", "1"]]) {
    const { out } = await finish(t, cwd, args)
    t.equal(out.split("\n")[0], `${PIN};`, args.join(" "))
    t.match(out.trimEnd(), /\ncommit;\nreset search_path;$/)
  }
})
