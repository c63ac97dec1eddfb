/** The way out of a disk that the log has filled, as docs/OPERATIONS.md has it. */

import { execFile } from "node:child_process"
import { chmod, mkdtemp, rm, statfs } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import t, { type Test } from "tap"
import { serverUser } from "../../cli/embedded/cluster.ts"
import { install } from "../../cli/schema/install.ts"
import { execSql, ownCluster } from "../helpers/cluster.ts"
import { failuresOf, isReady } from "../helpers/matrix.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const execute = promisify(execFile)

const mountable = await execute("unshare", ["--mount", "true"]).then(
  () => false as const,
  () => "this user cannot mount anything",
)

/** A file system of 24 MB, removed with the test. */
async function smallDisk(t: Test): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "commitcast-disk-"))
  await execute("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", dir])
  t.teardown(async () => {
    await execute("umount", ["-l", dir])
    await rm(dir, { recursive: true })
  })
  const user = await serverUser()
  if (user !== undefined) await execute("chown", [`${user.uid}:${user.gid}`, dir])
  await chmod(dir, 0o700)
  return dir
}

t.test("a log that has filled its disk is freed, and captures again", { skip: mountable }, async (t) => {
  // The server stops before its disk goes.
  const disk = await smallDisk(t)
  const cluster = await ownCluster(t)
  const superuser = cluster.superuserUrl.replace(/\/\w+$/, "/election")
  await execSql(superuser, `create tablespace small location '${disk}'`)
  for (const slot of [0, 1, 2]) {
    await execSql(superuser, `alter table relay.change_${slot} set tablespace small`)
    await execSql(superuser, `alter index relay.change_${slot}_xid set tablespace small`)
  }
  const relay = await startRelay(t, cluster, { CANARY_SECONDS: "0.2", RETENTION_MB: "12" })
  const write = () =>
    execSql(
      cluster.url,
      "insert into guarantee (note) select string_agg(md5(n::text), '') from generate_series(1, 3000) n",
    ).then(
      () => undefined,
      (error: Error & { code?: string }) => error.code,
    )
  let refused: string | undefined
  while (refused === undefined) refused = await write()
  t.equal(refused, "53100")
  await until("the relay is not ready", async () => !(await isReady(relay)))
  const problems = async () => (await relay.relay.report()).problems.join("\n")
  t.match(await problems(), /the relay cannot write to the log: the server's disk is full .*relay\.pause\(\)/)
  t.match((await failuresOf(cluster.url, relay)).join("\n"), /the server's disk is full/)

  await execSql(cluster.url, "select relay.pause()")
  t.equal(await write(), undefined, "writers go on")
  const lineage = (): string | undefined => {
    const { feed } = relay.relay.status()
    return feed.kind === "up" ? feed.cursor.lineage : undefined
  }
  const before = lineage()
  await execSql(cluster.url, "drop table relay.change_0, relay.change_1, relay.change_2 cascade")
  await execSql(superuser, "checkpoint")
  const { bfree, bsize } = await statfs(disk)
  t.ok(bfree * bsize > 20 * 1_048_576, `${bfree * bsize} bytes are free`)
  t.equal(await write(), undefined)
  t.match(await install(cluster.url), { state: "repaired", warnings: [] })
  // Until its next read a relay knows nothing of the new log.
  await until("the feed reads the new log", () => ![undefined, before].includes(lineage()))
  await until(
    "all is well",
    async () => (await relay.relay.report()).status === "ok" && (await isReady(relay)),
  )
  const client = await relay.connect()
  t.equal(await write(), undefined)
  await client.count(1)
})
