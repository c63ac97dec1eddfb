/** Revocation: whom relay.revoke names is sent away everywhere and not let in again, and nobody else notices. */

import t, { type Test } from "tap"
import { type Client, openClient } from "../helpers/client.ts"
import { run, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { issue, makePair, startIssuer } from "../helpers/issuer.ts"
import { startProxy } from "../helpers/proxy.ts"
import { metricOf, SECRET, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

const REVOKED = { code: 4507, reason: "revoked" }

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

const success = (client: Client) => client.first("success", ({ type }) => type === "connection_success")

/** Comes with a token, and is told how that ends. */
async function answerTo(relay: TestRelay, claims: Record<string, unknown>): Promise<string | number> {
  const client = await relay.open("/ws", { headers: { authorization: `Bearer ${token(claims)}` } })
  return Promise.race([success(client).then(({ type }) => type), client.closed.then(({ code }) => code)])
}

const refused = (relay: TestRelay) => metricOf(relay, "relay_auth_failures_total", 'reason="revoked"')

t.test("every relay closes the user's connections, and nobody else's", async (t) => {
  const { db, relay } = await start(t)
  const other = await startRelay(t, db)
  const theirs = [
    await relay.connect(),
    await relay.connect({}, "?channels=committee:1"),
    await other.connect(),
  ]
  const rest = [await relay.connect({ sub: "8" }), await other.connect({ sub: "77" })]
  await db.query("select relay.revoke('7')")
  for (const client of theirs) t.same(await client.closed, REVOKED)
  await db.query("insert into vote (votes) values (1)")
  for (const client of rest) t.match(await client.count(1), [{ data: { votes: 1 } }])
  for (const each of [relay, other]) {
    t.equal(await answerTo(each, {}), 4507)
    t.equal(await refused(each), 1)
    t.equal((await each.relay.report()).revocations, 1)
  }
  t.match(await relay.relay.exposition(), /^relay_revocations 1$/m)
  t.match(await relay.relay.exposition(), /^relay_closes_total\{code="4507"\} 3$/m)
})

t.test("nothing comes of what is written in the revocation's transaction, or after it", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect()
  await db.query(
    "begin; insert into vote (votes) values (1); select relay.revoke('7'); insert into vote (votes) values (2); commit; insert into vote (votes) values (3)",
  )
  t.same(await client.closed, REVOKED)
  t.same(client.changes(), [])
})

t.test("what is rolled back revokes nobody, and reinstates nobody", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect()
  await db.query("begin; select relay.revoke('7'); rollback; insert into vote (votes) values (1)")
  await client.count(1)
  await db.query("select relay.revoke('7')")
  t.same(await client.closed, REVOKED)
  const witness = await relay.connect({ sub: "8" })
  await db.query("begin; select relay.reinstate('7'); rollback; insert into vote (votes) values (2)")
  await witness.count(1)
  t.equal(await answerTo(relay, {}), 4507)
})

t.test("a revocation ends at its time, or when it is taken back, and the last call counts", async (t) => {
  const { db, relay } = await start(t)
  const witness = await relay.connect({ sub: "8" })
  let written = 0
  const told = async (sql: string) => {
    await db.query(`${sql}; insert into vote (votes) values (1)`)
    await witness.count(++written)
  }
  await told("select relay.revoke('7', now() + interval '1 hour')")
  t.equal(await answerTo(relay, {}), 4507)
  await told("select relay.reinstate('7')")
  t.equal(await answerTo(relay, {}), "connection_success")
  t.same(await db.query("select relay.reinstate('7') as it"), [{ it: false }])
  await told("select relay.revoke('7'); select relay.revoke('7', now() + interval '1 second')")
  await until("it is over", async () => (await answerTo(relay, {})) === "connection_success")
  await told("select relay.revoke('9')")
  t.same(await db.query("select value from relay.revocation"), [{ value: "9" }], "what is over is gone")
  t.equal((await relay.relay.report()).revocations, 1)
})

t.test("a jti revokes the connections of that token alone", async (t) => {
  const { db, relay } = await start(t)
  const one = await relay.connect({ jti: "one" })
  const two = await relay.connect({ jti: "two" })
  const renewing = await relay.connect({ jti: "three" })
  await db.query("select relay.revoke(jti => 'one')")
  t.same(await one.closed, REVOKED)
  t.equal(await answerTo(relay, { jti: "one" }), 4507)
  renewing.send({ type: "authenticate", token: token({ jti: "one" }) })
  t.same(await renewing.closed, REVOKED, "a renewal with it ends the connection as it would at the beginning")
  await db.query("insert into vote (votes) values (1)")
  t.equal((await two.count(1)).length, 1)
  t.equal(await answerTo(relay, { sub: "one" }), "connection_success", "a user of that name is none")
})

t.test("log out everywhere: tokens from before end, or without a time, and a new one lets in", async (t) => {
  const { db, relay } = await start(t)
  const now = Math.floor(Date.now() / 1_000)
  const old = await relay.connect({ iat: now - 60 })
  const renewed = await relay.connect({ iat: now - 60 })
  renewed.send({ type: "authenticate", token: token({ iat: now }) })
  await renewed.first("renewed", ({ type }) => type === "authenticated")
  await db.query("select relay.revoke('7', issued_before => to_timestamp($1))", [now])
  t.same(await old.closed, REVOKED)
  await db.query("insert into vote (votes) values (1)")
  await renewed.count(1)
  t.equal(await answerTo(relay, { iat: now - 1 }), 4507)
  t.equal(await answerTo(relay, { iat: now }), "connection_success")
  const timeless = await relay.open("/ws", {
    headers: { authorization: `Bearer ${token({}, { noTimestamp: true })}` },
  })
  t.same(await timeless.closed, REVOKED)
})

t.test("an admin who is revoked may not read the report", async (t) => {
  const { db, relay } = await start(t)
  const witness = await relay.connect({ sub: "8" })
  await db.query("select relay.revoke('7'); insert into vote (votes) values (1)")
  await witness.count(1)
  const answer = await fetch(`${relay.url}/api/utils/websocket/health/`, {
    headers: { authorization: `Bearer ${token({ role: "admin" })}` },
  })
  t.equal(answer.status, 401)
  t.same(await answer.json(), { error: "token revoked" })
})

t.test("who is revoked while the token is being checked is not let in", async (t) => {
  const db = await database(t)
  const pair = makePair("one")
  const issuer = await startIssuer(t, [pair])
  const relay = await startRelay(t, db, issuer.settings)
  const open = (text: string) => relay.open("/ws", { headers: { authorization: `Bearer ${text}` } })
  const witness = await open(issue(pair, { sub: "8" }))
  await success(witness)
  const next = makePair("next")
  const held: Array<() => void> = []
  issuer.answer = (response) => held.push(() => response.end(JSON.stringify({ keys: issuer.keys })))
  issuer.keys = (await startIssuer(t, [pair, next])).keys
  const client = await open(issue(next))
  await until("the issuer is asked", () => held.length > 0)
  await db.query("select relay.revoke('7'); insert into vote (votes) values (1)")
  await witness.count(1)
  for (const answer of held) answer()
  t.same(await client.closed, REVOKED)
  t.same(client.messages, [])
})

t.test("who is revoked while the relay cannot reach the database goes when it can again", async (t) => {
  const db = await database(t)
  const proxy = await startProxy(t, db.port)
  const relay = await startRelay(t, { url: db.url.replace(`:${db.port}/`, `:${proxy.port}/`) })
  const client = await relay.connect()
  proxy.refuse()
  proxy.cut()
  await until("the relay knows", () => !relay.relay.status().ready)
  await db.query("select relay.revoke('7')")
  proxy.heal()
  t.same(await client.closed, REVOKED)
  t.equal(await answerTo(relay, {}), 4507)
})

t.test("a relay that begins, or must begin anew, has those that are in force", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect({ sub: "8" })
  await db.query("select relay.revoke('7'), relay.revoke('9', now() + interval '50 milliseconds')")
  const later = await startRelay(t, db)
  t.equal(await answerTo(later, {}), 4507)
  await db.query("select relay.pause()")
  await db.query("select relay.revoke('6')")
  await until(
    "it is told while the capture is paused",
    async () => (await answerTo(relay, { sub: "6" })) === 4507,
  )
  await db.query("select relay.resume()")
  t.match(await client.closed, { code: 4010 })
  await until("a position", () => relay.relay.status().ready)
  for (const sub of ["6", "7"]) t.equal(await answerTo(relay, { sub }), 4507, sub)
  t.equal(await answerTo(relay, { sub: "8" }), "connection_success")
})

t.test("it is told under relay.bulk_load, and with no bell", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect()
  await db.query("set relay.bulk_load = 'on'; set relay.bell = 'off'; select relay.revoke('7')")
  t.same(await client.closed, REVOKED)
})

t.test("neither the bell nor the relay's log at its usual level tells of whom", async (t) => {
  const { db, relay } = await start(t, { LOG_LEVEL: "info" })
  const listener = await db.session()
  const payloads: Array<string | undefined> = []
  listener.on("notification", ({ payload }) => payloads.push(payload))
  await listener.query("listen election_updates")
  const client = await relay.connect({ sub: "somebody", jti: "secretive" })
  await db.query("select relay.revoke('somebody'), relay.revoke(jti => 'secretive')")
  t.same(await client.closed, REVOKED)
  await until("it rang", async () => {
    await listener.query("select 1")
    return payloads.some((payload) => payload?.includes("revocation"))
  })
  t.notMatch(JSON.stringify([payloads, relay.lines]), /somebody|secretive/)
})

t.test("more revocations than a page are one batch, and changes among them are seen", async (t) => {
  const { db, relay } = await start(t)
  const client = await relay.connect()
  const other = await relay.connect({ sub: "x" })
  const cursor = (await success(other)).cursor
  await db.query(`begin; select relay.revoke(n::text) from generate_series(100, 3100) n;
    insert into vote (votes) values (1);
    insert into vote (votes) values (2); select relay.revoke('7'); commit`)
  t.same(await client.closed, REVOKED)
  t.equal((await other.count(2)).length, 2)
  await other.first("the end of it", ({ type }) => type === "checkpoint")
  t.equal((await relay.relay.report()).revocations, 3_002)
  const later = await startRelay(t, db)
  const back = await later.connect({ sub: "x" }, `?cursor=${cursor}`)
  t.match(await back.count(2), [{ data: { votes: 1 } }, { data: { votes: 2 } }], "from the log too")
})

t.test("workers send the user away, and one that comes later knows", async (t) => {
  const db = await database(t)
  const relay = run(t, await workDirectory(t), ["start", "--workers", "2"], {
    DATABASE_URL: db.url,
    PORT: "0",
    JWT_SECRET: SECRET,
    DRAIN_TIMEOUT_SECONDS: "1",
  })
  const [line] = await relay.prints("ready", /^\{"event":"ready".*\}$/m)
  const { url } = JSON.parse(line) as { url: string }
  const open = (sub: string) =>
    openClient(t, `${url.replace("http", "ws")}/ws`, {
      headers: { authorization: `Bearer ${token({ sub })}` },
    })
  const report = async () => {
    const answer = await fetch(`${url}/api/utils/websocket/health/`, {
      headers: { authorization: `Bearer ${token({ sub: "admin", role: "admin" })}`, connection: "close" },
    })
    return (await answer.json()) as {
      revocations: number
      workers: Array<{ pid: number; connections: number }>
    }
  }
  const clients = await Promise.all(Array.from({ length: 6 }, () => open("7")))
  await Promise.all(clients.map(success))
  const { workers } = await report()
  t.ok(
    workers.every(({ connections }) => connections > 0),
    "both have some of them",
  )
  await db.query("select relay.revoke('7')")
  for (const client of clients) t.same(await client.closed, REVOKED)
  const [first] = workers
  process.kill(first?.pid as number, "SIGKILL")
  await until("another is there", async () => {
    // One that is dealt to the worker that is gone has no answer.
    const found = (await report().catch(() => undefined))?.workers
    return found?.length === 2 && found.every(({ pid }) => pid !== first?.pid)
  })
  t.equal((await report()).revocations, 1)
  t.match(await (await fetch(`${url}/metrics`)).text(), /^relay_revocations 1$/m)
  const again = await Promise.all(Array.from({ length: 4 }, () => open("7")))
  for (const client of again) t.same(await client.closed, REVOKED)
  await success(await open("8"))
})
