/** Runs beside the test files: makes a PostgreSQL server that they share, and stops it when their runner is gone. */

import { rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import pg from "pg"
import { z } from "zod"
import { placeBinaries } from "../../cli/embedded/binaries.ts"
import { type Cluster, initCluster, startCluster } from "../../cli/embedded/cluster.ts"
import { Identity, isAlive } from "../../cli/embedded/process.ts"
import { install } from "../../cli/schema/install.ts"
import { readElectionSchema } from "../../cli/schema/migrations.ts"
import { ADMIN, DEBIAN_15, EMPTY, type State, stateFileIn, TEMPLATE, urlOf } from "./servers.ts"

const PASSWORD = "tests"
const SETTINGS = {
  max_connections: 300,
  fsync: "off",
  max_prepared_transactions: 10,
  wal_level: "logical",
  deadlock_timeout: "200ms",
}
/** Between two looks at the runner. Milliseconds. */
const LOOK_MS = 200

const Arguments = z.tuple([z.enum(["15", "18"]), z.string(), z.coerce.number(), z.string()])
const [version, home, pid, started] = Arguments.parse(process.argv.slice(2))
const owner = Identity.parse({ pid, started })

let cluster: Cluster | undefined
try {
  cluster = await start()
  await makeTemplates(cluster.port)
  await tell({ kind: "ready", port: cluster.port })
} catch (error) {
  await tell({ kind: "failed", error: error instanceof Error ? `${error.stack}` : String(error) })
}
while (await isAlive(owner)) await sleep(LOOK_MS)
await cluster?.stop({ mode: "immediate" })
await rm(home, { recursive: true, force: true })

async function start(): Promise<Cluster> {
  const log = { info() {} }
  const binDir = version === "15" ? DEBIAN_15 : await placeBinaries({ log, systemDir: join(home, "bin") })
  const dataDir = join(home, "data")
  await initCluster({ binDir, dataDir, password: PASSWORD, initdbArgs: ["--no-sync"] })
  return startCluster({ binDir, dataDir, settings: SETTINGS })
}

/** Two roles as an application has them, a database with nothing, and one with the election schema under capture. */
async function makeTemplates(port: number): Promise<void> {
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

/** Whole or not at all. */
async function tell(state: State): Promise<void> {
  const draft = join(home, "state.new")
  await writeFile(draft, JSON.stringify(state))
  await rename(draft, stateFileIn(home))
}
