/** PgBouncer in front of the database: refused in transaction mode, where LISTEN is lost silently; fine in session mode. */

import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises"
import { createConnection } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import t, { type Test } from "tap"
import { serverUser } from "../../cli/embedded/cluster.ts"
import { freePort } from "../../cli/embedded/port.ts"
import { install } from "../../cli/schema/install.ts"
import { ConfigError } from "../../relay/config.ts"
import { type Database, database } from "../helpers/database.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const present = spawnSync("pgbouncer", ["--version"]).status === 0
const skip = present ? false : "pgbouncer is not installed"

/** @returns the database's URL through a pooler in that mode. */
async function pooled(t: Test, db: Database, mode: "transaction" | "session"): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), "commitcast-pooler-"))
  await chmod(home, 0o755)
  const port = await freePort()
  const file = join(home, "pgbouncer.ini")
  await writeFile(
    file,
    `[databases]
* = host=127.0.0.1 port=${db.port} user=app password=tests
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
`,
  )
  const user = await serverUser()
  const child: ChildProcess = spawn("pgbouncer", [file], {
    stdio: "ignore",
    ...(user && { uid: user.uid, gid: user.gid }),
  })
  t.teardown(async () => {
    const gone = new Promise((resolve) => child.on("close", resolve))
    child.kill("SIGKILL")
    await gone
    await rm(home, { recursive: true, force: true })
  })
  await until("the pooler", () => answers(port))
  return db.url.replace(`:${db.port}/`, `:${port}/`)
}

const answers = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = createConnection(port, "127.0.0.1", () => {
      socket.destroy()
      resolve(true)
    })
    socket.on("error", () => resolve(false))
  })

t.test("a pooler in transaction mode is refused with the remedy", { skip }, async (t) => {
  const db = await database(t)
  const url = await pooled(t, db, "transaction")
  const error = await install(url).then(
    () => undefined,
    (reason: Error) => reason,
  )
  t.ok(error instanceof ConfigError)
  t.match(error?.message, /pooler in transaction mode.*directly, or through a pool in session mode/)
  const next = await db.session(url)
  t.same((await next.query("show search_path")).rows, [{ search_path: '"$user", public' }], "left as it was")
})

t.test("a pooler in session mode works", { skip }, async (t) => {
  const db = await database(t)
  const url = await pooled(t, db, "session")
  t.match(await install(url), { state: "present" })
  const relay = await startRelay(t, { url })
  const client = await relay.connect()
  await db.query("insert into vote (votes) values (1)")
  t.match((await client.count(1))[0], { action: "create" })
})
