/** Coming in: where a token may stand, which tokens count, and what happens to the others. */

import { createHmac, generateKeyPairSync, type KeyObject } from "node:crypto"
import { type IncomingMessage, request } from "node:http"
import jwt from "jsonwebtoken"
import t, { type Test } from "tap"
import type { Client } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { SECRET, startRelay, type TestRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

const start = async (t: Test, settings: Record<string, string> = {}) => {
  const db = await database(t)
  return { db, relay: await startRelay(t, db, settings) }
}

const bearer = (text: string) => ({ headers: { authorization: `Bearer ${text}` } })
const seconds = () => Math.floor(Date.now() / 1_000)

/** How the relay ends a connection with this token. */
async function closing(relay: TestRelay, text: string) {
  const client = await relay.open("/ws", bearer(text))
  const closed = await client.closed
  return { ...closed, messages: client.messages.length }
}

async function success(relay: TestRelay, path: string, options?: Parameters<TestRelay["open"]>[1]) {
  const client = await relay.open(path, options)
  return client.first("connection_success", ({ type }) => type === "connection_success")
}

const REFUSED = { code: 4500, reason: "invalid token", messages: 0 }

t.test("a token is taken from the header, the subprotocol, the first message or the query", async (t) => {
  const { relay } = await start(t)
  for (const path of ["/ws", "/ws/"]) {
    t.match(await success(relay, path, bearer(token({ sub: "header" }))), { user: "header" })
    t.match(await success(relay, `${path}?token=${token({ sub: "query" })}`), { user: "query" })
    t.match(
      await success(relay, path, {
        protocols: ["commitcast.v1", `bearer.${token({ sub: "protocol" })}`],
      }),
      { user: "protocol" },
    )
    const client = await relay.open(path)
    client.send({ type: "authenticate", token: token({ sub: "message" }) })
    t.match(await client.first("a message", () => true), { type: "connection_success", user: "message" })
  }
})

t.test("the scheme of the header may be written in any case", async (t) => {
  const { relay } = await start(t)
  t.match(await success(relay, "/ws", { headers: { authorization: `bearer ${token()}` } }), { user: "7" })
})

t.test("the token never comes back as the chosen subprotocol", async (t) => {
  const { relay } = await start(t)
  const offer = (protocols: string) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      const upgrade = request(`${relay.url}/ws`, {
        headers: {
          connection: "Upgrade",
          upgrade: "websocket",
          "sec-websocket-version": "13",
          "sec-websocket-key": Buffer.alloc(16).toString("base64"),
          "sec-websocket-protocol": protocols,
        },
      })
      upgrade.on("upgrade", (response, socket) => {
        socket.destroy()
        resolve(response)
      })
      upgrade.on("response", (response) => reject(new Error(`status ${response.statusCode}`)))
      upgrade.on("error", reject)
      upgrade.end()
    })
  const secret = token()
  for (const [protocols, answered] of [
    [`commitcast.v1, bearer.${secret}`, "commitcast.v1"],
    [`bearer.${secret}, commitcast.v1`, "commitcast.v1"],
    [`bearer.${secret}`, undefined],
    [`bearer.${secret}, other`, undefined],
    ["other", undefined],
  ] as const) {
    const response = await offer(protocols)
    t.equal(response.headers["sec-websocket-protocol"], answered, protocols.replace(secret, "<token>"))
    t.notMatch(response.rawHeaders.join("\n"), secret)
  }
})

t.test("with QUERY_TOKEN off a token in the query counts for nothing", async (t) => {
  const { relay } = await start(t, { QUERY_TOKEN: "off", AUTH_TIMEOUT_SECONDS: "0.2" })
  const refused = await relay.open(`/ws?token=${token()}`)
  t.match(await success(relay, `/ws?token=${token({ sub: "8" })}`, bearer(token())), { user: "7" })
  t.match(await refused.closed, { code: 4502 })
  t.equal(refused.messages.length, 0)
})

t.test("two tokens in one request are refused, wherever they stand", async (t) => {
  const { relay } = await start(t)
  const protocols = ["commitcast.v1", `bearer.${token()}`]
  for (const [what, path, options] of [
    ["header and query", `/ws?token=${token()}`, bearer(token())],
    ["header and subprotocol", "/ws", { ...bearer(token()), protocols }],
    ["subprotocol and query", `/ws?token=${token()}`, { protocols }],
    ["query twice", `/ws?token=${token()}&token=${token()}`, {}],
    ["subprotocol twice", "/ws", { protocols: [...protocols, `bearer.${token({ sub: "8" })}`] }],
    ["a bad one beside a good one", "/ws?token=x", bearer(token())],
  ] as const) {
    const client = await relay.open(path, options as Parameters<TestRelay["open"]>[1])
    t.match(await client.closed, { code: 4501, reason: "more than one token" }, what)
    t.equal(client.messages.length, 0, what)
  }
})

t.test("a token that is not valid closes with 4500 and no word on why", async (t) => {
  const { relay } = await start(t)
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const claims = { sub: "7", exp: seconds() + 3_600 }
  const signed = (header: object, body: string) => {
    const text = `${encode(header)}.${body}`
    return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`
  }
  const good = signed({ alg: "HS256", typ: "JWT" }, encode(claims))
  t.match(await success(relay, "/ws", bearer(good)), { user: "7" }, "this one is")
  const [head, body, signature] = good.split(".") as [string, string, string]
  const tokens: Record<string, string> = {
    "no JWT": "x",
    "an empty signature": `${head}.${body}.`,
    "another payload under the signature": `${head}.${encode({ ...claims, sub: "8" })}.${signature}`,
    "alg none": `${encode({ alg: "none", typ: "JWT" })}.${body}.`,
    "alg none in other letters": `${encode({ alg: "nOnE", typ: "JWT" })}.${body}.`,
    "alg none with a signature": signed({ alg: "none" }, body),
    "a payload that is no object": signed({ alg: "HS256" }, encode("admin")),
    "a payload that is no JSON": signed({ alg: "HS256" }, Buffer.from("admin").toString("base64url")),
    "another secret": jwt.sign(claims, `another ${SECRET}`),
    "another HMAC": jwt.sign(claims, SECRET, { algorithm: "HS384" }),
    "no exp": jwt.sign({ sub: "7" }, SECRET),
    "exp as text": signed({ alg: "HS256" }, encode({ sub: "7", exp: String(claims.exp) })),
    "not valid yet": token({ nbf: seconds() + 60 }),
    "a refresh token": token({ token_type: "refresh" }),
    "a sliding token": token({ token_type: "sliding" }),
    "a token type of no text": token({ token_type: null }),
    "no user": jwt.sign({ exp: claims.exp }, SECRET),
    "an empty user": token({ sub: "" }),
    "a user as an object": signed({ alg: "HS256" }, encode({ ...claims, sub: { id: 7 } })),
    "a user as true": signed({ alg: "HS256" }, encode({ ...claims, sub: true })),
    "a number that a double cannot hold": signed(
      { alg: "HS256" },
      Buffer.from(`{"sub":9007199254740993,"exp":${claims.exp}}`).toString("base64url"),
    ),
    "a user that is no whole number": signed({ alg: "HS256" }, encode({ ...claims, sub: 7.5 })),
    "committees as text": token({ committees: "1" }),
    "committees as a number": token({ committees: 1 }),
    "committees as null": token({ committees: null }),
    "committees as an object": token({ committees: { 0: "1" } }),
    "committees with null": token({ committees: ["1", null] }),
    "committees with a list": token({ committees: [["1"]] }),
    "elections as text": token({ elections: "1" }),
    "channels as text": token({ channels: "election_updates" }),
    "channels as true": token({ channels: true }),
    "is_staff as text": token({ is_staff: "false" }),
    "role as a list": token({ role: ["admin"] }),
  }
  const found = await Promise.all(Object.values(tokens).map(async (text) => closing(relay, text)))
  Object.keys(tokens).forEach((what, index) => {
    t.same(found[index], REFUSED, what)
  })
  const empty = await relay.open("/ws?token=")
  t.match(await empty.closed, { code: 4500, reason: "invalid token" }, "an empty token")
})

t.test("ids in a token may be numbers", async (t) => {
  const { relay } = await start(t)
  const sign = (claims: object) => jwt.sign({ exp: seconds() + 60, ...claims }, SECRET)
  t.match(await success(relay, "/ws", bearer(sign({ user_id: 12 }))), { user: "12" })
  t.match(await success(relay, "/ws", bearer(sign({ user_id: 12, sub: "13" }))), { user: "13" })
  t.match(
    await success(relay, "/ws?channels=committee:3", bearer(sign({ user_id: "u", committees: [3, "4"] }))),
    { channels: ["committee:3", "user:u"] },
  )
  t.match(await success(relay, "/ws", bearer(sign({ user_id: 12, token_type: "access" }))), { user: "12" })
})

t.test("an expired token closes with 4005, so that clients fetch another and come back", async (t) => {
  const { relay } = await start(t)
  t.same(await closing(relay, token({ exp: seconds() - 60 })), {
    code: 4005,
    reason: "token expired",
    messages: 0,
  })
})

t.test("a bad first message with a token closes as well", async (t) => {
  const { relay } = await start(t)
  const client = await relay.open("/ws")
  client.send({ type: "authenticate", token: "x" })
  t.match(await client.closed, { code: 4500, reason: "invalid token" })
})

t.test("only the issuer and the audience that are set count", async (t) => {
  const { relay } = await start(t, { JWT_ISSUER: "django", JWT_AUDIENCE: "relay" })
  const right = { iss: "django", aud: "relay" }
  t.match(await success(relay, "/ws", bearer(token(right))), { user: "7" })
  t.match(await success(relay, "/ws", bearer(token({ ...right, aud: ["other", "relay"] }))), { user: "7" })
  for (const wrong of [
    {},
    { iss: "django" },
    { aud: "relay" },
    { ...right, iss: "other" },
    { ...right, aud: "other" },
  ])
    t.same(await closing(relay, token(wrong)), REFUSED, JSON.stringify(wrong))
})

const pem = (key: KeyObject) => key.export({ type: "spki", format: "pem" }).toString()
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const p256 = generateKeyPairSync("ec", { namedCurve: "P-256" })

t.test("an RSA key takes RS256 and nothing else", async (t) => {
  const { relay } = await start(t, { JWT_SECRET: "", JWT_PUBLIC_KEY: pem(rsa.publicKey) })
  const claims = { sub: "7", exp: seconds() + 60 }
  const asymmetric = (algorithm: jwt.Algorithm, key: KeyObject) => jwt.sign(claims, key, { algorithm })
  t.match(await success(relay, "/ws", bearer(asymmetric("RS256", rsa.privateKey))), { user: "7" })
  const head = Buffer.from('{"alg":"HS256","typ":"JWT"}').toString("base64url")
  const text = `${head}.${Buffer.from(JSON.stringify(claims)).toString("base64url")}`
  for (const key of [pem(rsa.publicKey), pem(rsa.publicKey).trim()]) {
    const confused = `${text}.${createHmac("sha256", key).update(text).digest("base64url")}`
    t.same(await closing(relay, confused), REFUSED, "HS256 with the public key as the secret")
  }
  t.same(await closing(relay, asymmetric("PS256", rsa.privateKey)), REFUSED, "PS256")
  t.same(await closing(relay, asymmetric("RS512", rsa.privateKey)), REFUSED, "RS512")
  t.same(await closing(relay, asymmetric("ES256", p256.privateKey)), REFUSED, "ES256")
  t.same(await closing(relay, token()), REFUSED, "HS256 with a secret")
})

t.test("a P-256 key takes ES256 and nothing else", async (t) => {
  const oneLine = pem(p256.publicKey).replaceAll("\n", "\\n")
  const { relay } = await start(t, { JWT_SECRET: "", JWT_PUBLIC_KEY: oneLine })
  const sign = (key: KeyObject, algorithm: jwt.Algorithm) =>
    jwt.sign({ sub: "7", exp: seconds() + 60 }, key, { algorithm })
  const other = generateKeyPairSync("ec", { namedCurve: "P-256" })
  t.match(await success(relay, "/ws", bearer(sign(p256.privateKey, "ES256"))), { user: "7" })
  t.same(await closing(relay, sign(rsa.privateKey, "RS256")), REFUSED, "RS256")
  t.same(await closing(relay, sign(other.privateKey, "ES256")), REFUSED, "the key of somebody else")
})

t.test("who does not authenticate in time is sent away", async (t) => {
  const { relay } = await start(t, { AUTH_TIMEOUT_SECONDS: "0.2" })
  const client = await relay.open("/ws")
  t.match(await client.closed, { code: 4502, reason: "not authenticated in time" })
  const basic = await relay.open("/ws", { headers: { authorization: "Basic dXNlcjpwYXNz" } })
  t.match(await basic.closed, { code: 4502 })
})

t.test("a token that expires while connected closes with 4005, and one of 60 days does not", async (t) => {
  const { relay } = await start(t)
  const days = 60 * 86_400
  const long = await relay.connect({ exp: seconds() + days })
  // Clocks may differ by 5 s, so this one is good for less than three more, and may be over before it is looked at.
  const shorts: Client[] = []
  await until("one is let in", async () => {
    const short = await relay.connect({ exp: seconds() - 2 }).catch(() => undefined)
    if (short !== undefined) shorts.push(short)
    return short !== undefined
  })
  const [short] = shorts
  t.match(short?.messages[0], { expires_in: Number })
  t.ok(Number(short?.messages[0]?.expires_in) <= 3)
  t.match(await short?.closed, { code: 4005, reason: "token expired" })
  const left = Number(long.messages[0]?.expires_in)
  t.ok(left > days - 60 && left < days + 60)
  long.send({ type: "ping" })
  await long.first("pong", ({ type }) => type === "pong")
})

t.test("a token is renewed on the open socket, for the same user alone", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect({ exp: seconds() })
  client.send({ type: "authenticate", token: token(), request: 1 })
  const renewed = await client.first("authenticated", ({ type }) => type === "authenticated")
  t.match(renewed, { user: "7", request: 1, expires_in: Number })
  t.ok(Number(renewed.expires_in) > 3_500)
  client.send({ type: "authenticate", token: token({ sub: "8" }), request: "r" })
  t.match(await client.first("error", ({ type }) => type === "error"), { code: "other_user", request: "r" })
  const short = await relay.connect({ exp: seconds(), sub: "8" })
  await short.closed
  await db.query("insert into vote default values")
  await client.count(1)
  client.send({ type: "authenticate", token: "x" })
  t.match(await client.closed, { code: 4500 })
})

t.test("a renewed token with other rights changes what is seen from then on", async (t) => {
  const { relay, db } = await start(t)
  const client = await relay.connect({}, "?channels=election_updates,committee:1,committee:2")
  const renew = async (claims: Record<string, unknown>, request: number) => {
    client.send({ type: "authenticate", token: token(claims), request })
    await client.first("authenticated", (message) => message.request === request)
  }
  const insert = "insert into vote (committee_id) values (1), (2), (3), (null)"
  await db.query(insert)
  await client.count(4)
  await renew({ committees: [2] }, 1)
  await db.query(insert)
  await client.count(5)
  client.send({ type: "subscribe", channels: ["committee:1"], request: 2 })
  t.match(await client.first("error", ({ request }) => request === 2), { code: "forbidden_channel" })
  await renew({}, 3)
  await db.query(insert)
  await client.count(9)
  t.same(
    client.changes().map(({ data }) => data?.committee_id),
    [1, 2, 3, null, 2, 1, 2, 3, null],
  )
})
