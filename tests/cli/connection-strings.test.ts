/** Connection strings against real servers: encrypted, several, by a socket, and as a service. */

import { execFile } from "node:child_process"
import { once } from "node:events"
import { copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { type AddressInfo, createServer, connect as netConnect } from "node:net"
import { networkInterfaces, tmpdir } from "node:os"
import { join } from "node:path"
import { TLSSocket } from "node:tls"
import { promisify } from "node:util"
import t, { type Test } from "tap"
import { freePort } from "../../cli/embedded/port.ts"
import { connect } from "../../cli/schema/database.ts"
import { Database } from "../../relay/lib/database.ts"
import { readLogin } from "../../relay/lib/login.ts"
import { authority, noOpenssl } from "../helpers/certificates.ts"
import { execSql, noBinaries, type OwnCluster, ownCluster } from "../helpers/cluster.ts"
import { finish, workDirectory } from "../helpers/command.ts"
import { startRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const execute = promisify(execFile)
const noIpv6 =
  Object.values(networkInterfaces()).some((each) => each?.some(({ address }) => address === "::1")) ===
    false && "no IPv6 on this machine"
const WAY = `
  select coalesce(ssl, false) as encrypted, client_dn as certificate
  from pg_catalog.pg_stat_ssl where pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()`

/** How a session of ours comes to the server, or why not. */
async function way(url: string): Promise<Record<string, unknown>> {
  try {
    const client = await connect(url)
    const { rows } = await client.query(WAY)
    await client.end()
    return rows[0]
  } catch (error) {
    return { [(error as Error).name]: (error as Error).message }
  }
}

/** Puts files into a server's data, for it alone to read. */
async function place({ dataDir }: OwnCluster, files: Record<string, string>): Promise<void> {
  for (const [name, from] of Object.entries(files)) {
    await copyFile(from, join(dataDir, name))
    await execute("chmod", ["600", join(dataDir, name)])
    await execute("chown", ["--reference", dataDir, join(dataDir, name)])
  }
}

/** Replaces the rules by which the server lets sessions in; local ones of its superuser always. */
async function rules(cluster: OwnCluster, ...lines: string[]): Promise<void> {
  const superuser = "host all postgres 127.0.0.1/32 scram-sha-256\nhost all postgres ::1/128 scram-sha-256\n"
  await writeFile(join(cluster.dataDir, "pg_hba.conf"), `${superuser}${lines.join("\n")}\n`)
  await execSql(cluster.superuserUrl, "select pg_reload_conf()")
}

async function encryptedCluster(t: Test) {
  const cluster = await ownCluster(t)
  const signer = await authority(t)
  const server = await signer.sign("server", "subjectAltName=DNS:localhost")
  await place(cluster, { "server.crt": server.cert, "server.key": server.key, "root.crt": signer.root })
  await execSql(
    cluster.superuserUrl,
    "alter system set ssl_ca_file = 'root.crt'",
    "alter system set ssl = on",
    "select pg_reload_conf()",
  )
  const at = (host: string, query: string) => `postgres://app:tests@${host}:${cluster.port}/election?${query}`
  return { cluster, signer, at }
}

t.test("sslmode has libpq's meaning", { skip: noOpenssl }, async (t) => {
  const { cluster, signer, at } = await encryptedCluster(t)
  const other = await authority(t)
  const encrypted = { encrypted: true }
  const plain = { encrypted: false }
  const local = (query: string) => way(at("127.0.0.1", query))

  t.match(await local(""), encrypted, "prefer is what holds without one")
  t.match(await local("sslmode=disable"), plain)
  t.match(await local("sslmode=allow"), plain)
  t.match(await local("sslmode=prefer"), encrypted)
  t.match(await local("sslmode=require"), encrypted, "whoever signed the certificate")
  t.match(await local("sslmode=require&channel_binding=require"), encrypted)
  t.match(await local(`sslmode=require&sslrootcert=${signer.root}`), encrypted)
  t.match(await local(`sslmode=verify-ca&sslrootcert=${signer.root}`), encrypted, "whatever its name")
  t.match(await way(at("localhost", `sslmode=verify-full&sslrootcert=${signer.root}`)), encrypted)
  t.match(
    await way(
      `host=localhost hostaddr=127.0.0.1 port=${cluster.port} user=app password=tests dbname=election sslmode=verify-full sslrootcert=${signer.root}`,
    ),
    encrypted,
    "the name is verified, wherever it is reached",
  )
  for (const query of ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full"])
    t.match(
      await local(`${query}&sslrootcert=${other.root}`),
      { ConfigError: /DATABASE_URL: sslmode=/ },
      query,
    )
  t.match(await local(`sslmode=verify-full&sslrootcert=${signer.root}`), { ConfigError: /127\.0\.0\.1/ })

  await rules(cluster, "hostssl all app all scram-sha-256")
  t.match(await local("sslmode=allow"), encrypted, "allow encrypts where it must")
  t.match(await local("sslmode=disable"), { ConfigError: /pg_hba\.conf/ })
  await rules(cluster, "hostnossl all app all scram-sha-256")
  t.match(await local("sslmode=prefer"), plain, "prefer does without where it must")
  t.match(await local("sslmode=require"), { ConfigError: /pg_hba\.conf/ })

  const own = await signer.sign("app")
  await rules(cluster, "hostssl all app all cert")
  const certificate = `sslcert=${own.cert}&sslkey=${own.key}`
  t.match(await local(`sslmode=require&${certificate}`), { certificate: "/CN=app" })
  t.match(await local("sslmode=require"), { ConfigError: /./ })

  await rules(cluster, "hostssl all app all scram-sha-256")
  const relay = await startRelay(t, { url: at("127.0.0.1", "sslmode=require") })
  const client = await relay.connect()
  await execSql(at("127.0.0.1", "uselibpqcompat=true&sslmode=require"), "insert into vote (votes) values (1)")
  t.match((await client.count(1))[0], { type: "voting_update" }, "feed, listener and pool are encrypted")

  await execSql(cluster.superuserUrl, "alter system set ssl = off", "select pg_reload_conf()")
  await rules(cluster, "host all app all scram-sha-256")
  t.match(await local("sslmode=prefer"), plain, "of a server that does not encrypt")
  t.match(await local("sslmode=require"), {
    ConfigError: /sslmode=require, but 127\.0\.0\.1 does not encrypt/,
  })
  t.match(await local("channel_binding=require"), { ConfigError: /channel_binding=require/ })
})

t.test("of several hosts the first that fits is taken", { skip: noBinaries("15") }, async (t) => {
  const primary = await ownCluster(t, {}, "15")
  const standby = await primary.baseBackup({ standby: true })
  await standby.start()
  const nobody = await freePort()
  const url = (ports: number[], query = "") =>
    `postgres://app:tests@${ports.map((port) => `127.0.0.1:${port}`).join(",")}/election${query}`
  const portOf = async (its: string) => {
    const client = await connect(its)
    const { rows } = await client.query("select current_setting('port')::int as port")
    await client.end()
    return rows[0].port
  }
  const wants = "?target_session_attrs=read-write"
  t.equal(await portOf(url([nobody, primary.port])), primary.port, "passing over those that do not answer")
  t.equal(await portOf(url([standby.port, nobody, primary.port], wants)), primary.port)
  t.equal(await portOf(url([standby.port, primary.port], "?target_session_attrs=primary")), primary.port)
  t.equal(await portOf(url([standby.port, primary.port], `${wants}&load_balance_hosts=random`)), primary.port)
  await t.rejects(connect(url([standby.port, primary.port])), {
    name: "ConfigError",
    message: /standby.*target_session_attrs=read-write/,
  })
  await t.rejects(connect(url([nobody, standby.port], wants)), {
    name: "UnreachableError",
    message: /127\.0\.0\.1:\d+: .*ECONNREFUSED.*127\.0\.0\.1:\d+: is a standby/,
  })
  for (const [address, { port }] of [
    ["127.0.0.3", standby],
    ["127.0.0.4", primary],
  ] as const) {
    const way = createServer((socket) => void socket.pipe(netConnect(port, "127.0.0.1")).pipe(socket))
    way.listen(nobody, address)
    await once(way, "listening")
    t.teardown(() => way.close())
  }
  const named = new Database(
    readLogin(`postgres://app:tests@db.example:${nobody}/election${wants}`, {}),
    async () => ["127.0.0.3", "127.0.0.4"],
  )
  const line = (await named.dial("test")).stream()
  t.equal(line.remoteAddress, "127.0.0.4", "of a name that leads to both it is the address of the primary")
  line.destroy()
  await execSql(primary.superuserUrl, "alter database election set default_transaction_read_only = on")
  await t.rejects(connect(url([primary.port], wants)), {
    name: "UnreachableError",
    message: /takes no writes/,
  })
  await execSql(primary.superuserUrl, "alter database election reset default_transaction_read_only")
  await t.rejects(connect(url([primary.port, standby.port], wants).replace(":tests@", ":wrong@")), {
    name: "ConfigError",
    message: /password authentication failed/,
  })

  const relay = await startRelay(t, { url: url([standby.port, primary.port], wants) })
  const client = await relay.connect()
  await execSql(primary.url, "insert into vote (votes) values (1)")
  await client.count(1)
  const lineages = () => relay.lines.filter(({ event }) => event === "feed_up").map(({ lineage }) => lineage)
  await primary.stop("fast")
  await standby.promote()
  await until("the relay reads from the new primary", () => new Set(lineages()).size === 2)
  await relay.relay.whenReady()
  const after = await relay.connect()
  await execSql(standby.url, "insert into vote (votes) values (3)")
  t.match((await after.first("a change of the new primary", ({ type }) => type === "voting_update")).data, {
    votes: 3,
  })
})

t.test("services, password files, sockets and keywords are read", async (t) => {
  const cluster = await ownCluster(t)
  const cwd = await workDirectory(t)
  const directory = await mkdtemp(join(tmpdir(), "commitcast-socket-"))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  await execute("chown", ["--reference", cluster.dataDir, directory])
  await cluster.stop("fast")
  await cluster.start({ unix_socket_directories: directory })
  const { port } = cluster
  const services = join(cwd, "services")
  const passwords = join(cwd, "passwords")
  await writeFile(services, `[election]\nhost=127.0.0.1\nport=${port}\ndbname=election\nuser=app\n`)
  await writeFile(passwords, `127.0.0.1:${port}:election:app:tests\nlocalhost:*:*:app:tests\n`, {
    mode: 0o600,
  })
  const files = { PGSERVICEFILE: services, PGPASSFILE: passwords }
  const query = (DATABASE_URL: string, env: Record<string, string> = {}) =>
    finish(t, cwd, ["query", "select current_user as name"], { DATABASE_URL, ...env })
  const fine = { code: 0, out: '{"name":"app"}\n', err: "" }
  t.strictSame(await query("service=election", files), fine)
  t.strictSame(await query("postgres://", { ...files, PGSERVICE: "election" }), fine)
  t.strictSame(await query(`host=${directory} port=${port} dbname=election user=app`, files), fine)
  t.strictSame(await query(`postgres://app:tests@${encodeURIComponent(directory)}:${port}/election`), fine)
  const env = { PGHOST: "127.0.0.1", PGPORT: String(port), PGUSER: "app", PGPASSWORD: "tests" }
  t.strictSame(await query("dbname=election", env), fine)
  t.strictSame(await query("postgres:///election", env), fine)

  const wrong: Record<string, RegExp> = {
    "service=other": /DATABASE_URL .*service other/,
    "postgres://h1,h2/d?target_session_attrs=standby": /DATABASE_URL .*target_session_attrs=standby/,
    "postgres://h/d?sslmode=maybe": /DATABASE_URL .*sslmode/,
    "postgres://h/d?requirepeer=x": /DATABASE_URL .*requirepeer/,
    "postgres://h/d?shade=x": /DATABASE_URL .*shade/,
    [`postgres://app@127.0.0.1:${port}/election`]: /DATABASE_URL.*asks for a password/,
    [`postgres://app:tests@127.0.0.1:${port}/election?sslmode=require`]: /DATABASE_URL.*sslmode=require/,
  }
  for (const [text, message] of Object.entries(wrong)) {
    const { code, err } = await query(text, { PGSERVICEFILE: services })
    t.match([code, err], [2, message], text)
    t.equal(err.trimEnd().split("\n").length, 1, "in one line")
    const started = await finish(t, cwd, ["start"], {
      DATABASE_URL: text,
      JWT_SECRET: "x".repeat(32),
      PORT: "0",
      PGSERVICEFILE: services,
      LOG_LEVEL: "error",
    })
    t.match([started.code, started.err], [2, message], `start: ${text}`)
  }
})

/** A server that encrypts with anybody's certificate, and asks for the password itself. */
async function passwordThief(t: Test): Promise<{ port: number; heard: () => string }> {
  const { cert, key } = await (await authority(t)).sign("server")
  const [context, heard] = [{ cert: await readFile(cert), key: await readFile(key) }, [] as Buffer[]]
  const server = createServer((socket) => {
    socket.on("error", () => {})
    socket.once("data", () => {
      socket.write("S")
      const line = new TLSSocket(socket, { isServer: true, ...context })
      line.on("error", () => {})
      line.once("data", () => line.write(Buffer.from([82, 0, 0, 0, 8, 0, 0, 0, 3])))
      line.on("data", (data) => heard.push(data))
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  t.teardown(() => server.close())
  return { port: (server.address() as AddressInfo).port, heard: () => Buffer.concat(heard).toString() }
}

t.test("with channel_binding=require no server learns the password", { skip: noOpenssl }, async (t) => {
  const { port, heard } = await passwordThief(t)
  const thief = `127.0.0.1:${port}`
  const refused = /channel_binding=require, but the server does not bind/
  for (const [hosts, query] of [
    [thief, "sslmode=require"],
    [thief, "sslmode=require&target_session_attrs=read-write"],
    [`${thief},${thief}`, "sslmode=require"],
    [thief, "sslmode=prefer"],
  ])
    t.match(
      Object.values(await way(`postgres://app:hush@${hosts}/election?${query}&channel_binding=require`)),
      [refused],
      `${hosts} ${query}`,
    )
  t.match(heard(), "app", "it was spoken to")
  t.notMatch(heard(), "hush")
})

t.test(
  "a password that is changed while a relay runs is taken from its file, without a restart",
  async (t) => {
    const cluster = await ownCluster(t)
    const passwords = join(await workDirectory(t), "passwords")
    const keep = (password: string) => writeFile(passwords, `*:*:*:app:${password}\n`, { mode: 0o600 })
    await keep("tests")
    const relay = await startRelay(t, {
      url: `postgres://app@127.0.0.1:${cluster.port}/election?passfile=${passwords}`,
    })
    await execSql(
      cluster.superuserUrl,
      "alter role app password 'another'",
      "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'",
    )
    await until("health says why nobody comes in", () =>
      /password authentication failed/.test(relay.relay.status().problems.join()),
    )
    await keep("another")
    await relay.relay.whenReady()
    const client = await relay.connect()
    await execSql(cluster.url.replace(":tests@", ":another@"), "insert into vote (votes) values (1)")
    t.match((await client.count(1))[0], { type: "voting_update" })
  },
)

t.test("a server is reached by an IPv6 address", { skip: noIpv6 }, async (t) => {
  const cluster = await ownCluster(t, { listen_addresses: "127.0.0.1,::1" })
  const url = cluster.url.replace("127.0.0.1", "[::1]")
  const relay = await startRelay(t, { url })
  const client = await relay.connect()
  const session = await connect(url)
  t.teardown(() => session.end())
  t.match((await session.query("select inet_client_addr()::text as address")).rows, [{ address: "::1/128" }])
  await session.query("insert into public.vote (votes) values (1)")
  t.match((await client.count(1))[0], { type: "voting_update" })
  const keywords = `host=::1 port=${cluster.port} dbname=election user=app password=tests`
  t.match(await way(keywords), { encrypted: false })
})
