/** Keys that an issuer publishes: which count, how they follow each other, and what an issuer that fails or is slow costs. */

import { createHmac, generateKeyPairSync, type JsonWebKey } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import t, { type Test } from "tap"
import { freePort } from "../../cli/embedded/port.ts"
import { database } from "../helpers/database.ts"
import {
  AUDIENCE,
  ISSUER,
  type Issuer,
  issue,
  jwkOf,
  makePair,
  type Pair,
  startIssuer,
} from "../helpers/issuer.ts"
import { launchRelay, metricOf, startRelay, type TestRelay } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

t.jobs = 3

const first = makePair("first")
const second = makePair("second")
const rsa = makePair("rsa", "RS256")
const made = makePair("made up")

async function start(t: Test, pairs: Pair[], settings: Record<string, string> = {}) {
  const issuer = await startIssuer(t, pairs)
  const db = await database(t)
  return { issuer, db, relay: await startRelay(t, db, { ...issuer.settings, ...settings }) }
}

const open = (relay: TestRelay, token: string) =>
  relay.open("/ws", { headers: { authorization: `Bearer ${token}` } })

/** "in", or the code that the relay closes with. */
async function fate(relay: TestRelay, token: string): Promise<string> {
  const client = await open(relay, token)
  const success = client.first("success", ({ type }) => type === "connection_success").then(() => "in")
  success.catch(() => {})
  const found = await Promise.race([success, client.closed.then(({ code }) => String(code))])
  client.socket.terminate()
  return found
}

const fetches = (relay: TestRelay, result: string) =>
  metricOf(relay, "relay_key_fetches_total", `result="${result}"`)

/** A token with a header and a signature of one's own. */
function forge(header: object, sign: (text: string) => string): string {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const exp = Math.floor(Date.now() / 1_000) + 60
  const text = `${encode(header)}.${encode({ sub: "7", iss: ISSUER, aud: AUDIENCE, exp })}`
  return `${text}.${sign(text)}`
}

const hmac = (secret: string | Buffer) => (text: string) =>
  createHmac("sha256", secret).update(text).digest("base64url")

t.test("tokens of the issuer's keys let in, each with its own algorithm, and no others", async (t) => {
  const { relay, issuer } = await start(t, [first, rsa])
  t.equal(await fate(relay, issue(first)), "in")
  t.equal(await fate(relay, issue(rsa)), "in")
  t.equal(issuer.asked(), 1, "the keys are kept")
  t.match(relay.relay.status(), { ready: true, keys: { source: "jwks", known: 2, error: null } })
  const pem = rsa.publicKey.export({ type: "spki", format: "pem" }).toString()
  const der = rsa.publicKey.export({ type: "spki", format: "der" })
  const { n = "", x = "" } = { ...jwkOf(rsa), x: jwkOf(first).x }
  const tokens: Record<string, string> = {
    "another issuer": issue(first, { iss: "https://evil.example" }),
    "no issuer": issue(first, { iss: undefined }),
    "another audience": issue(first, { aud: "another application" }),
    "no audience": issue(first, { aud: undefined }),
    "another key under a known name": issue({ ...made, kid: "first" }),
    "the name of a key of another type": issue({ ...first, kid: "rsa" }),
    "another algorithm under the name of a key": issue({ ...rsa, kid: "first" }),
    "HS256 with the public key as PEM": forge({ alg: "HS256", kid: "rsa" }, hmac(pem)),
    "HS256 with the public key as DER": forge({ alg: "HS256", kid: "rsa" }, hmac(der)),
    "HS256 with the modulus": forge({ alg: "HS256", kid: "rsa" }, hmac(Buffer.from(n, "base64url"))),
    "HS256 with a coordinate": forge({ alg: "HS256", kid: "first" }, hmac(Buffer.from(x, "base64url"))),
    "HS256 with the key set's text": forge({ alg: "HS256", kid: "rsa" }, hmac(JSON.stringify(jwkOf(rsa)))),
    "HS256 with nothing": forge({ alg: "HS256", kid: "none" }, hmac("")),
    "alg none": forge({ alg: "none", kid: "first" }, () => ""),
    "alg none with a signature": forge({ alg: "none", kid: "first" }, hmac("")),
  }
  for (const [what, text] of Object.entries(tokens)) t.equal(await fate(relay, text), "4500", what)
  t.equal(issuer.asked(), 1, "none of them is a reason to ask")
})

t.test("a key that the token brings along, or says where to find, is not looked at", async (t) => {
  const { relay } = await start(t, [first])
  const evil = await startIssuer(t, [made])
  const { JWKS_URL: url } = evil.settings
  for (const header of [
    { jku: url },
    { jwk: jwkOf(made) },
    { x5u: url },
    { x5c: [made.publicKey.export({ type: "spki", format: "der" }).toString("base64")] },
  ]) {
    const names = [
      { kid: "first" },
      { kid: "made up" },
      { kid: undefined },
      { kid: url },
      { kid: "../../dev/null" },
    ]
    for (const name of names) t.not(await fate(relay, issue(made, {}, { ...name, ...header })), "in")
  }
  t.equal(evil.asked(), 0)
})

t.test("keys that are no keys for signatures are left out of the set", async (t) => {
  const unusable: Record<string, JsonWebKey> = {
    secret: { kty: "oct", kid: "secret", k: Buffer.from("s".repeat(40)).toString("base64url") },
    encryption: { ...jwkOf(makePair("encryption")), use: "enc" },
    operations: { ...jwkOf(makePair("operations")), key_ops: ["encrypt"] },
    "another algorithm": { ...jwkOf(makePair("another algorithm")), alg: "ES384" },
    private: { ...made.privateKey.export({ format: "jwk" }), kid: "private", alg: "ES256" },
    short: {
      ...generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ format: "jwk" }),
      kid: "short",
    },
    "another curve": {
      ...generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey.export({ format: "jwk" }),
      kid: "another curve",
    },
    Edwards: { ...generateKeyPairSync("ed25519").publicKey.export({ format: "jwk" }), kid: "Edwards" },
    "no point of the curve": { ...jwkOf(makePair("no point of the curve")), x: "AAAA" },
    "the wrong type": { ...jwkOf(makePair("the wrong type")), kty: "RSA" },
  }
  const { relay, issuer } = await start(t, [first])
  t.equal(relay.relay.status().keys.known, 1)
  const all = await startIssuer(t, [first])
  const odd: unknown[] = [null, "key", 7, [], {}]
  all.keys = [...(odd as JsonWebKey[]), ...Object.values(unusable), jwkOf(first)]
  const other = await startRelay(t, await database(t), all.settings)
  t.equal(other.relay.status().keys.known, 1, "the one that is usable")
  t.equal(await fate(other, issue(first)), "in")
  t.equal(await fate(other, issue({ ...made, kid: "private" })), "4500", "a private key that everybody has")
  t.equal(await fate(other, forge({ alg: "HS256", kid: "secret" }, hmac("s".repeat(40)))), "4500")
  t.equal(issuer.asked(), 1)
})

t.test("a token that names no key is checked if there is no choice", async (t) => {
  const one = await start(t, [first, rsa])
  const nameless = (pair: Pair) => issue(pair, {}, { kid: undefined })
  t.equal(await fate(one.relay, nameless(first)), "in")
  t.equal(await fate(one.relay, nameless(rsa)), "in")
  t.equal(await fate(one.relay, nameless(second)), "4500")
  const two = await start(t, [first, second])
  t.equal(await fate(two.relay, nameless(first)), "4500")
  t.equal(two.issuer.asked(), 1)
})

t.test(
  "a key that follows another counts from the first token on, one that is withdrawn no longer",
  async (t) => {
    const { relay, issuer } = await start(t, [first], { JWKS_REFRESH_SECONDS: "0.3" })
    const slow = await start(t, [first])
    slow.issuer.keys = [first, second].map(jwkOf)
    t.equal(await fate(slow.relay, issue(second)), "in", "asked for at once, long before the next look")
    t.equal(await fate(slow.relay, issue(first)), "in")
    t.equal(slow.issuer.asked(), 2)
    issuer.keys = [jwkOf(second)]
    await until("the first key counts no longer", async () => (await fate(relay, issue(first))) !== "in")
    t.equal(await fate(relay, issue(second)), "in")
    t.ok(relay.lines.some(({ event }) => event === "keys_fetched"))
  },
)

t.test("a flood of made-up keys costs the issuer one question, and nobody else anything", async (t) => {
  const { relay, issuer } = await start(t, [first])
  const client = await open(relay, issue(first))
  await client.first("success", ({ type }) => type === "connection_success")
  const flood = await Promise.all(
    Array.from({ length: 150 }, (_, n) => fate(relay, issue({ ...made, kid: `made up ${n}` }))),
  )
  t.equal(issuer.asked(), 2)
  t.same(
    [...new Set(flood)].filter((code) => code !== "4500" && code !== "4011"),
    [],
    "refused, or told to come again",
  )
  t.ok(flood.includes("4500"))
  t.equal(await fate(relay, issue(first)), "in")
  t.equal(
    (await metricOf(relay, "relay_auth_failures_total", 'reason="invalid"')) +
      (await metricOf(relay, "relay_auth_failures_total", 'reason="unavailable"')),
    150,
  )
  issuer.keys = [first, second].map(jwkOf)
  t.equal(
    await fate(relay, issue(second)),
    "4011",
    "who comes with a new key just then is not sent away for good",
  )
  await until("the next question may be asked", async () => (await fate(relay, issue(second))) === "in")
  t.equal(issuer.asked(), 3)
  client.send({ type: "ping" })
  await client.first("pong", ({ type }) => type === "pong")
})

t.test(
  "with the issuer away at the start the relay is up, says why it is not ready, and gets there",
  async (t) => {
    const issuer = await startIssuer(t, [first], await freePort())
    const relay = await launchRelay(t, await database(t), issuer.settings)
    await until("it has tried twice", async () => (await fetches(relay, "failed")) >= 2)
    await until("all else is there", () => relay.relay.status().problems.length === 1)
    t.match(relay.relay.status(), {
      ready: false,
      problems: [/^there are no keys for tokens: connect ECONNREFUSED/],
      keys: { known: 0, fetched_seconds_ago: null },
    })
    t.match(
      relay.lines.find(({ event }) => event === "keys_not_fetched"),
      { known: 0, attempt: 1, retry_in_ms: Number, error: /ECONNREFUSED/ },
    )
    t.equal((await fetch(`${relay.url}/health/live`)).status, 200)
    t.equal((await fetch(`${relay.url}/health/ready`)).status, 503)
    const report = await fetch(`${relay.url}/api/utils/websocket/health/`, {
      headers: { authorization: `Bearer ${issue(first, { role: "admin" })}` },
    })
    t.equal(report.status, 503, "nobody can be told who is an admin")
    await t.rejects(open(relay, issue(first)), { message: /503/ }, "refused before the upgrade: come again")
    await issuer.listen()
    await relay.relay.whenReady()
    t.equal(await fate(relay, issue(first)), "in")
  },
)

const FAULTS: [name: string, answer: Issuer["answer"], error: RegExp][] = [
  ["answers 500", (response) => response.writeHead(500).end("no"), /answers 500/],
  ["has nothing there", (response) => response.writeHead(404).end(), /answers 404/],
  ["answers with a page", (response) => response.end("<html>"), /no key set/],
  ["answers with other JSON", (response) => response.end('{"keys":{}}'), /no key set/],
  ["publishes nothing", (response) => response.end('{"keys":[]}'), /no key for RS256 or ES256/],
  ["publishes a secret", (response) => response.end('{"keys":[{"kty":"oct","k":"AAAA"}]}'), /no key for/],
  ["hangs up", (response) => response.destroy(), /closed|hang up|ECONNRESET|other side/],
  ["does not answer", () => {}, /in time/],
  ["begins, and does not end", (response) => response.write('{"keys":['), /in time/],
  [
    "does not come to an end",
    (response) => {
      const more = () => {
        if (response.write(" ".repeat(65_536))) setImmediate(more)
        else response.once("drain", more)
      }
      response.on("error", () => {})
      more()
    },
    /more than 262144 bytes/,
  ],
]

t.test("while the issuer fails, the keys that are known count, and it is said what is wrong", async (t) => {
  const elsewhere = await startIssuer(t, [made])
  const redirect: (typeof FAULTS)[number] = [
    "sends elsewhere",
    (response) => response.writeHead(302, { location: elsewhere.settings.JWKS_URL as string }).end(),
    /redirect/,
  ]
  const settings = { JWKS_REFRESH_SECONDS: "0.2", AUTH_TIMEOUT_SECONDS: "1" }
  const { relay, issuer } = await start(t, [first], settings)
  for (const [name, answer, error] of [redirect, ...FAULTS]) {
    issuer.answer = answer
    const failed = await fetches(relay, "failed")
    await until(`it ${name}`, async () => (await fetches(relay, "failed")) > failed)
    t.match(relay.relay.status(), { ready: true, keys: { known: 1, error } }, name)
    t.equal(await fate(relay, issue(first)), "in", name)
    t.equal(await fate(relay, issue(second)), "4011", `${name}: who knows, the key may be good`)
    issuer.answer = undefined
    await until("it is well again", () => relay.relay.status().keys.error === null)
  }
  t.equal(elsewhere.asked(), 0)
  issuer.answer = (response) => response.writeHead(500).end()
  await until("it fails again", () => relay.relay.status().keys.error !== null)
  const report = await fetch(`${relay.url}/api/utils/websocket/health/`, {
    headers: { authorization: `Bearer ${issue(first, { role: "admin" })}` },
  })
  t.match(await report.json(), {
    status: "degraded",
    problems: ["the keys for tokens cannot be fetched anew: the issuer answers 500"],
    keys: { source: "jwks", known: 1, fetched_seconds_ago: Number, error: "the issuer answers 500" },
  })
  t.equal((await fetch(`${relay.url}/health/ready`)).status, 200)
})

/** An issuer that does not answer before it is told to. */
function holdAnswers(issuer: Issuer): { release(): void } {
  const held: Array<() => void> = []
  issuer.answer = (response) => held.push(() => response.end(JSON.stringify({ keys: issuer.keys })))
  return {
    release() {
      issuer.answer = undefined
      for (const go of held.splice(0)) go()
    },
  }
}

t.test("what a client sends while the issuer is asked waits, keeps its order, and is bounded", async (t) => {
  const { relay, issuer, db } = await start(t, [first])
  issuer.keys = [first, second].map(jwkOf)
  const { release } = holdAnswers(issuer)
  const client = await open(relay, issue(second, { sub: "8" }))
  await until("the issuer is asked", () => issuer.asked() === 2)
  client.send({ type: "subscribe", channels: ["committee:1"], request: "a" })
  client.send({ type: "authenticate", token: issue(first, { sub: "8" }), request: "b" })
  for (let n = 0; n < 33; n++) client.send({ type: "ping", request: n })
  const busy = () => client.messages.filter(({ code }) => code === "busy").length
  await until("the rest is too much", () => busy() === 3)
  t.equal(await fate(relay, issue(first)), "in", "others need not wait")
  release()
  await client.first("the last answer", ({ request }) => request === 29)
  const answers = client.messages.filter(({ type }) => !["error", "ping"].includes(type))
  t.same(
    answers.slice(0, 3).map(({ type, request }) => [type, request]),
    [
      ["connection_success", undefined],
      ["subscribed", "a"],
      ["authenticated", "b"],
    ],
  )
  t.same(
    answers.slice(3).map(({ request }) => request),
    Array.from({ length: 30 }, (_, n) => n),
  )
  await db.query("insert into vote default values")
  await client.count(1)
})

t.test("a few long frames are as much as may wait", async (t) => {
  const { relay, issuer } = await start(t, [first])
  const { release } = holdAnswers(issuer)
  const client = await open(relay, issue(second))
  await until("the issuer is asked", () => issuer.asked() === 2)
  for (let n = 0; n < 3; n++) client.send({ type: "ping", padding: "x".repeat(16_000) })
  await client.first("too much", ({ code }) => code === "busy")
  release()
  t.match(await client.closed, { code: 4500 })
})

t.test("who goes while the issuer is asked leaves nothing behind", async (t) => {
  const { relay, issuer, db } = await start(t, [first])
  issuer.keys = [first, second].map(jwkOf)
  const { release } = holdAnswers(issuer)
  const gone = await Promise.all(Array.from({ length: 5 }, () => open(relay, issue(second))))
  await until("the issuer is asked", () => issuer.asked() === 2)
  gone.forEach(({ socket }, n) => {
    if (n % 2 === 0) socket.terminate()
    else socket.close()
  })
  await until("they are gone", () => relay.relay.status().hub.connections === 0)
  release()
  const client = await open(relay, issue(second))
  await client.first("success", ({ type }) => type === "connection_success")
  await db.query("insert into vote default values")
  await client.count(1)
  t.match(relay.relay.status().hub, { connections: 1, lanes: 1, users: { 7: 1 } })
  t.equal(await metricOf(relay, "relay_deliveries_total"), 1)
})

t.test(
  "the time to authenticate goes on while the issuer is asked, and is not the client's fault",
  async (t) => {
    const { relay, issuer } = await start(t, [first], { AUTH_TIMEOUT_SECONDS: "2" })
    issuer.answer = () => {}
    const early = await open(relay, issue(second))
    t.match(await early.closed, { code: 4011, reason: "the token cannot be checked now" })
  },
)

t.test("a renewal that cannot be checked leaves the connection as it was", async (t) => {
  const { relay, issuer, db } = await start(t, [first], { JWKS_REFRESH_SECONDS: "0.2" })
  const client = await open(relay, issue(first))
  await client.first("success", ({ type }) => type === "connection_success")
  issuer.answer = (response) => response.writeHead(503).end()
  await until("it fails", () => relay.relay.status().keys.error !== null)
  client.send({ type: "authenticate", token: issue(second), request: 1 })
  t.match(await client.first("an answer", ({ request }) => request === 1), { type: "error", code: "busy" })
  await db.query("insert into vote default values")
  await client.count(1)
  issuer.keys = [jwkOf(second)]
  issuer.answer = undefined
  await until("it is well again", () => relay.relay.status().keys.error === null)
  client.send({ type: "authenticate", token: issue(second), request: 2 })
  t.match(await client.first("an answer", ({ request }) => request === 2), { type: "authenticated" })
})

t.test("a relay that stops while the issuer is asked hangs up, and asks no more", async (t) => {
  const { relay, issuer } = await start(t, [first])
  let hungUp = false
  issuer.answer = (response) =>
    response.once("close", () => {
      hungUp = true
    })
  const client = await open(relay, issue(second))
  await until("the issuer is asked", () => issuer.asked() === 2)
  await relay.stop()
  t.match(await client.closed, { code: 4000 })
  await until("it has hung up", () => hungUp)
  await sleep(500)
  t.equal(issuer.asked(), 2)
})
