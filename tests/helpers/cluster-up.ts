/** Runs once before the test files: real PostgreSQL servers for all of them, with the template that databases are cloned from. */

import { existsSync } from "node:fs"
import { chmod, mkdir, mkdtemp, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import pg from "pg"
import { placeBinaries } from "../../cli/embedded/binaries.ts"
import { initCluster, serverUser, startCluster } from "../../cli/embedded/cluster.ts"
import { install } from "../../cli/schema/install.ts"
import { readElectionSchema } from "../../cli/schema/migrations.ts"
import { ADMIN, EMPTY, type Servers, STATE_FILE, TEMPLATE, urlOf } from "./servers.ts"

const DEBIAN_15 = "/usr/lib/postgresql/15/bin"
const PASSWORD = "tests"
const silent = { info() {}, warn() {} }

const home = await mkdtemp(join(tmpdir(), "commitcast-tests-"))
await chmod(home, 0o755)
const user = await serverUser()
const embedded = await placeBinaries({ log: silent, systemDir: join(home, "bin") })
const servers: Servers = { home, ports: {}, pids: [] }
for (const [version, binDir] of [
  ["18", embedded],
  ...(existsSync(`${DEBIAN_15}/postgres`) ? [["15", DEBIAN_15]] : []),
] as const) {
  const dataDir = join(home, String(version))
  const as = user === undefined ? {} : { user }
  await initCluster({ binDir: String(binDir), dataDir, password: PASSWORD, initdbArgs: ["--no-sync"], ...as })
  const cluster = await startCluster({
    binDir: String(binDir),
    dataDir,
    settings: {
      max_connections: 300,
      fsync: "off",
      max_prepared_transactions: 10,
      wal_level: "logical",
      deadlock_timeout: "200ms",
    },
    ...as,
  })
  servers.ports[String(version)] = cluster.port
  servers.pids.push(cluster.pid)
  await makeTemplate(String(version))
}
await mkdir(dirname(STATE_FILE), { recursive: true })
await writeFile(STATE_FILE, JSON.stringify(servers))
// The servers have a process group of their own and go on.
process.exit(0)

/** Two roles as an application has them, a database with nothing, and one with the election schema under capture. */
async function makeTemplate(version: string): Promise<void> {
  const port = servers.ports[version] as number
  const admin = new pg.Client({ connectionString: urlOf(port, "postgres", "postgres", PASSWORD) })
  await admin.connect()
  await admin.query(`create role ${ADMIN} login password '${PASSWORD}' createrole`)
  await admin.query(`create role writer login password '${PASSWORD}'`)
  for (const name of [EMPTY, TEMPLATE]) await admin.query(`create database ${name} owner ${ADMIN}`)
  const owner = new pg.Client({ connectionString: urlOf(port, TEMPLATE, ADMIN, PASSWORD) })
  await owner.connect()
  await owner.query(await readElectionSchema())
  await owner.query(
    "grant usage on schema public to writer; grant all on all tables in schema public to writer; grant all on all sequences in schema public to writer",
  )
  await install(urlOf(port, TEMPLATE, ADMIN, PASSWORD))
  // What is derived comes when it is computed: the tests that are not about it should not have to tell it apart.
  await owner.query("delete from relay.derived")
  await owner.end()
  await admin.end()
}
