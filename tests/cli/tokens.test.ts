/** Tokens with several worker processes: keys of an issuer, and no token in what any of them prints. */

import { readFileSync } from "node:fs"
import { join } from "node:path"
import t, { type Test } from "tap"
import { freePort } from "../../cli/embedded/port.ts"
import { openClient } from "../helpers/client.ts"
import { finish, run, workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { issue, jwkOf, makePair, startIssuer } from "../helpers/issuer.ts"
import { until } from "../helpers/wait.ts"

const first = makePair("first")
const second = makePair("second")
const READY = /^\{"event":"ready".*\}$/m

async function startWorkers(t: Test, settings: Record<string, string>) {
  const db = await database(t)
  const port = await freePort()
  const relay = run(t, await workDirectory(t), ["start", "--workers", "2", "--port", String(port)], {
    DATABASE_URL: db.url,
    DRAIN_TIMEOUT_SECONDS: "1",
    LOG_LEVEL: "trace",
    ...settings,
  })
  const url = `http://127.0.0.1:${port}`
  return {
    ...relay,
    url,
    get: (path: string, token: string) =>
      fetch(url + path, { headers: { authorization: `Bearer ${token}`, connection: "close" } }),
    open: (query: string, options: Parameters<typeof openClient>[2] = {}) =>
      openClient(t, `${url.replace("http", "ws")}/ws${query}`, options),
  }
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })
const REPORT = "/api/utils/websocket/health/"

t.test(
  "every worker fetches the issuer's keys for itself, and the report is of the one worst off",
  async (t) => {
    const issuer = await startIssuer(t, [first], await freePort())
    const relay = await startWorkers(t, { ...issuer.settings, JWKS_REFRESH_SECONDS: "0.3" })
    await relay.prints("why it is not ready", /keys_not_fetched/)
    t.equal((await fetch(`${relay.url}/health/ready`)).status, 503)
    t.notMatch(relay.out(), READY)
    await issuer.listen()
    await relay.prints("ready", READY)
    issuer.keys = [first, second].map(jwkOf)
    for (let n = 0; n < 4; n++) {
      const client = await relay.open("", bearer(issue(second)))
      await client.first("success", ({ type }) => type === "connection_success")
    }
    const report = async () => {
      const answer = await relay.get(REPORT, issue(first, { role: "admin" }))
      return (await answer.json()) as { status: string; keys: { error: string | null }; workers: unknown[] }
    }
    await until("both know both keys", async () => (await report()).status === "ok")
    t.match(await report(), { workers: { length: 2 }, keys: { source: "jwks", known: 2, error: null } })
    issuer.answer = (response) => response.writeHead(500).end()
    await until("it is told", async () => (await report()).keys.error !== null)
    t.match(await report(), {
      status: "degraded",
      problems: [/cannot be fetched anew: the issuer answers 500/],
    })
    const metrics = await (await fetch(`${relay.url}/metrics`)).text()
    t.match(metrics, /relay_key_fetches_total\{result="done"\} \d/)
    t.match(metrics, /relay_key_fetches_total\{result="failed"\} \d/)
  },
)

t.test("no process prints a token, wherever it stood, nor tells it to anybody", async (t) => {
  const issuer = await startIssuer(t, [first])
  const audit = join(await workDirectory(t), "audit.log")
  const relay = await startWorkers(t, { ...issuer.settings, AUDIT_LOG: audit })
  await relay.prints("ready", READY)
  const secrets: string[] = []
  /** In a connection each, so that all workers have seen each. */
  const marked = (claims: Record<string, unknown> = {}) => {
    const token = issue(first, { jti: `marked ${secrets.length}`, ...claims })
    secrets.push(token)
    return token
  }
  const bad = (token: string) => `${token.slice(0, -8)}AAAAAAAA`
  const told: string[] = []
  const open = async (query: string, options?: Parameters<typeof openClient>[2]) => {
    const client = await relay.open(query, options).catch((error: Error) => void told.push(error.message))
    if (client === undefined) return
    client.send({ type: "authenticate", token: marked() })
    client.send({ type: "subscribe", channels: [marked()] })
    client.send(marked())
    client.send({
      type: "subscribe",
      types: [marked().slice(-250)],
      where: { [marked().slice(0, 60)]: marked().slice(0, 250) },
    })
    const { reason } = await Promise.race([
      client.closed,
      client.first("an answer", ({ code }) => code === "bad_message").then(() => ({ reason: "" })),
    ])
    told.push(reason, ...client.texts)
  }
  for (let round = 0; round < 2; round++) {
    await open(`?token=${marked()}`)
    await open("", bearer(marked()))
    await open("", { protocols: ["commitcast.v1", `bearer.${marked()}`] })
    for (const token of [
      bad(marked()),
      marked({ exp: 1 }),
      marked({ aud: "other" }),
      `${marked()}&token=${marked()}`,
    ])
      await open(`?token=${token}`)
    await open(`?token=${issue(makePair("made up"), { jti: marked() })}`)
    await open(`?cursor=${marked()}&token=${marked()}`)
    await open(`?channels=${marked()}&token=${marked()}`)
    await open(`?token=${marked()}`, { headers: { origin: "https://evil.example" } })
    await open(`/../nowhere?token=${marked()}`)
    for (const path of [
      REPORT,
      `/nowhere?token=${marked()}`,
      `/%zz?token=${marked()}`,
      `/metrics?token=${marked()}`,
    ]) {
      const answer = await relay.get(path, marked())
      told.push(JSON.stringify([...answer.headers]), await answer.text())
    }
  }
  told.push(await (await relay.get(REPORT, marked({ role: "admin" }))).text())
  relay.child.kill("SIGTERM")
  t.equal(await relay.ended, 0)
  t.match(relay.err(), /"event":"connected"/, "the log has its lines")
  const audited = readFileSync(audit, "utf8")
  for (const event of ["refused", "token_refused", "connected", "closed"])
    t.match(audited, `"event":"${event}"`, "the audit log has its lines")
  const all = [relay.out(), relay.err(), audited, ...told].join("\n")
  for (const secret of secrets) {
    const [, payload = "", signature = ""] = secret.split(".")
    t.notOk(all.includes(payload), "no claims")
    t.notOk(all.includes(signature.slice(0, 20)), "no signature")
  }
})

t.test("keys that cannot work end the start with exit code 2, also with workers", async (t) => {
  const cwd = await workDirectory(t)
  const db = await database(t)
  const wrong: [settings: Record<string, string>, message: RegExp][] = [
    [{ JWKS_URL: "https://issuer.example/jwks" }, /JWKS_URL needs JWT_ISSUER and JWT_AUDIENCE/],
    [{ JWKS_URL: "http://issuer.example/jwks" }, /JWKS_URL \(--jwks-url\) is wrong: must be an https URL/],
    [{ JWT_SECRET: "short" }, /JWT_SECRET \(--jwt-secret\) is wrong: must be at least 32 bytes/],
    [
      { JWT_PUBLIC_KEY: "-----BEGIN PUBLIC KEY-----" },
      /JWT_PUBLIC_KEY .* is wrong: it is not a PEM public key/,
    ],
    [{}, /JWT_SECRET \(--jwt-secret\) is missing/],
  ]
  for (const [settings, message] of wrong) {
    for (const workers of ["1", "2"])
      t.match(
        await finish(t, cwd, ["start", "--workers", workers, "--port", "0"], {
          DATABASE_URL: db.url,
          ...settings,
        }),
        { code: 2, err: message },
        `${Object.keys(settings)}, ${workers}`,
      )
  }
})
