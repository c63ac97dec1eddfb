/** A PostgreSQL server of the test's own, for tests that stop and kill it. */

import { chmod, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import pg from "pg"
import type { Test } from "tap"
import { placeBinaries } from "../../cli/embedded/binaries.ts"
import { initCluster, serverUser, startCluster } from "../../cli/embedded/cluster.ts"
import { install } from "../../cli/install.ts"
import { readElectionSchema } from "../../cli/migrations.ts"

export interface OwnCluster {
  /** As a role that is no superuser, to a database with the election schema under capture. */
  url: string
  superuserUrl: string
  stop(mode: "fast" | "immediate"): Promise<void>
  /** Again, on the same port and data. */
  start(): Promise<void>
}

/** Makes one, removed with the test. */
export async function ownCluster(
  t: Test,
  settings: Record<string, string | number> = {},
): Promise<OwnCluster> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-cluster-"))
  await chmod(home, 0o755)
  const user = await serverUser()
  const as = user === undefined ? {} : { user }
  const binDir = await placeBinaries({ log: { info() {} }, systemDir: join(home, "bin") })
  const dataDir = join(home, "data")
  await initCluster({ binDir, dataDir, password: "tests", initdbArgs: ["--no-sync"], ...as })
  let cluster = await startCluster({ binDir, dataDir, settings, ...as })
  const { port } = cluster
  t.teardown(async () => {
    await cluster.stop({ mode: "immediate" })
    await rm(home, { recursive: true, force: true })
  })
  const superuserUrl = `postgres://postgres:tests@127.0.0.1:${port}/postgres`
  const admin = new pg.Client({ connectionString: superuserUrl })
  await admin.connect()
  await admin.query("create role app login password 'tests'")
  await admin.query("create database election owner app")
  await admin.end()
  const url = `postgres://app:tests@127.0.0.1:${port}/election`
  const owner = new pg.Client({ connectionString: url })
  await owner.connect()
  await owner.query(await readElectionSchema())
  await owner.end()
  await install(url)
  return {
    url,
    superuserUrl,
    stop: (mode) => cluster.stop({ mode }),
    async start() {
      cluster = await startCluster({ binDir, dataDir, port, settings, ...as })
    },
  }
}
