/** What a server refuses is said in words that lead to the remedy, and the exit code tells a wrong setting from the rest. */

import { execFile } from "node:child_process"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import pg from "pg"
import t, { type Test } from "tap"
import { connect } from "../../cli/schema/database.ts"
import { execSql, ownCluster } from "../helpers/cluster.ts"
import { finish, workDirectory } from "../helpers/command.ts"
import { SECRET, startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const execute = promisify(execFile)

/** What `commitcast doctor` prints on a database that refuses it. */
async function doctor(t: Test, url: string) {
  const { code, out } = await finish(t, await workDirectory(t), ["doctor"], {
    DATABASE_URL: url,
    JWT_SECRET: SECRET,
  })
  return { code, out }
}

/** Takes every connection that is left, until the end of the test. */
async function crowdOf(t: Test, url: string): Promise<pg.Client[]> {
  const crowd: pg.Client[] = []
  t.teardown(() => Promise.all(crowd.map((client) => client.end().catch(() => {}))))
  for (;;) {
    const client = new pg.Client({ connectionString: url })
    client.on("error", () => {})
    const connected = await client.connect().then(
      () => true,
      () => false,
    )
    if (!connected) return crowd
    crowd.push(client)
  }
}

t.test("a server without a connection to spare is neither away nor to be started", async (t) => {
  const cluster = await ownCluster(t, {
    max_connections: 10,
    superuser_reserved_connections: 0,
    autovacuum: "off",
  })
  await execSql(
    cluster.url,
    "select relay.define_derived('total', 'pg_backend_pid', '{vote}', max_age => '100 ms', min_interval => '100 ms')",
  )
  const relay = await startRelay(t, cluster, { CANARY_SECONDS: "0.2" })
  const crowd = await crowdOf(t, cluster.url)
  const { code, out } = await doctor(t, cluster.url)
  t.equal(code, 1)
  t.match(out, /every connection that the server gives out is taken \(.*\)\n +-> raise max_connections/)
  t.notMatch(out, /does not answer|Start it/)
  const track = await finish(t, await workDirectory(t), ["track", "vote"], { DATABASE_URL: cluster.url })
  t.equal(track.code, 1, "it is no wrong setting")
  t.match(track.err, /every connection .*\n-> raise max_connections/)
  await crowd[0]?.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ '^commitcast'",
  )
  await crowdOf(t, cluster.url)
  await until("the relay says it of what it cannot do", async () => {
    const { problems } = await relay.relay.report()
    return problems.some((problem) => /every connection that the server gives out is taken/.test(problem))
  })
  for (const problem of (await relay.relay.report()).problems) t.notMatch(problem, /run it in psql/)
})

t.test("who is kept out by pg_hba.conf is not asked for another password", async (t) => {
  const cluster = await ownCluster(t)
  await writeFile(join(cluster.dataDir, "pg_hba.conf"), "host all postgres all scram-sha-256\n")
  await execSql(cluster.superuserUrl, "select pg_reload_conf()")
  await until("it holds", async () => {
    const refused = await connect(cluster.url).then(
      (client) => client.end(),
      (error: Error) => error,
    )
    return refused instanceof Error
  })
  const { code, out } = await doctor(t, cluster.url)
  t.equal(code, 1)
  t.match(out, /pg_hba\.conf lets no such host, role and database in/)
  t.match(out, /-> add a line for them/)
  t.notMatch(out, /check user and password/)
  const track = await finish(t, await workDirectory(t), ["track", "vote"], { DATABASE_URL: cluster.url })
  t.equal(track.code, 2)
})

const mountable = await execute("unshare", ["--mount", "true"]).then(
  () => false as const,
  () => "this user cannot mount anything",
)

t.test("a full disk of the embedded database is no wrong setting", { skip: mountable }, async (t) => {
  const cwd = await workDirectory(t)
  const dir = join(cwd, "small")
  await mkdir(dir)
  await execute("mount", ["-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", dir])
  t.teardown(() => execute("umount", ["-l", dir]))
  const { code, err } = await finish(t, cwd, ["start", "--port", "0"], { COMMITCAST_DIR: join(dir, "data") })
  t.equal(code, 1)
  t.match(err, /The disk is full: free some of it, and start again\.$/m)
})
