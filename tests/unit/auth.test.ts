/** Tokens: which are good, and what they say. What a client is told of the others is in tests/relay/connect.test.ts. */

import { createHmac, generateKeyPairSync, type KeyObject } from "node:crypto"
import fc from "fast-check"
import jwt from "jsonwebtoken"
import t from "tap"
import { type Auth, createAuth } from "../../relay/access/auth.ts"
import { settledKeys } from "../../relay/access/keys.ts"
import { ConfigError, readSettings } from "../../relay/config.ts"

const SECRET = "s".repeat(32)
function make(given: Record<string, string>): Auth {
  const settings = readSettings(given)
  return createAuth(settledKeys(settings), settings)
}
const auth = make({ JWT_SECRET: SECRET })
const seconds = () => Math.floor(Date.now() / 1_000)
const sign = (claims: object) => jwt.sign({ exp: seconds() + 60, sub: "7", ...claims }, SECRET)
const reasonOf = async (token: string | undefined, of = auth) => {
  const result = await of.verify(token)
  return result.ok ? "ok" : result.reason
}

t.test("a good token says who it is and what it may", async (t) => {
  const exp = seconds() + 60
  const identity = async (claims: object) => {
    const result = await auth.verify(sign({ exp, ...claims }))
    return result.ok ? result.identity : t.fail("not ok", { claims })
  }
  const nothing = { committees: null, elections: null, channels: null, roles: new Set<string>() }
  t.match(await identity({}), { user: "7", admin: false, rights: nothing })
  t.match(await identity({ sub: 7 }), { user: "7" })
  t.match(await identity({ sub: undefined, user_id: 12 }), { user: "12" })
  t.match(await identity({ user_id: 12 }), { user: "7" }, "sub comes first")
  t.match(await identity({ sub: Number.MAX_SAFE_INTEGER }), { user: "9007199254740991" })
  t.match(await identity({ role: "admin" }), { admin: true })
  t.match(await identity({ is_staff: true }), { admin: true })
  t.match(await identity({ roles: ["admin"] }), { admin: true })
  t.match(await identity({ role: "administrator", is_staff: false }), { admin: false })
  for (const [claims, roles] of [
    [{}, []],
    [{ role: "teller" }, ["teller"]],
    [{ roles: ["teller", "clerk"] }, ["teller", "clerk"]],
    [{ role: "a", roles: ["b"], is_staff: true }, ["b", "a", "admin"]],
    [{ roles: [], is_staff: false }, []],
  ] as const)
    t.strictSame(
      ((await identity(claims)) as { rights: { roles: unknown } }).rights.roles,
      new Set(roles),
      JSON.stringify(claims),
    )
  t.strictSame(
    ((await identity({ committees: [1, "2"], elections: [], channels: ["a:1"] })) as { rights: unknown })
      .rights,
    {
      committees: new Set(["1", "2"]),
      elections: new Set(),
      channels: new Set(["a:1"]),
      roles: new Set(),
    },
  )
  const { expiresAt } = (await identity({})) as { expiresAt: number }
  t.ok(expiresAt >= exp * 1_000 && expiresAt <= (exp + 5) * 1_000, "with some leeway for clocks")
})

/** When connections with such a token are closed. */
async function endsOf(exp: number, count: number): Promise<number[]> {
  const text = sign({ exp })
  const results = await Promise.all(Array.from({ length: count }, () => auth.verify(text)))
  return results.map((result) => (result.ok ? result.identity.expiresAt : Number.NaN))
}

t.test("those whose tokens expire together end one after another, and none after the leeway", async (t) => {
  const exp = seconds() + 3_600
  const ends = await endsOf(exp, 1_000)
  t.ok(ends.every((end) => end >= exp * 1_000 && end <= (exp + 5) * 1_000))
  for (let second = 0; second < 5; second++) {
    const from = (exp + second) * 1_000
    const share = ends.filter((end) => end >= from && end < from + 1_000).length
    t.ok(share > 100 && share < 300, `${share} of 1000 in second ${second}`)
  }
  const late = seconds() - 2
  const before = Date.now()
  const left = await endsOf(late, 200)
  t.ok(
    left.every((end) => end > before && end <= (late + 5) * 1_000),
    "one that comes in the leeway is not closed at once",
  )
})

t.test("a token may live for 60 days, or until the year 9999", async (t) => {
  for (const exp of [seconds() + 60 * 86_400, 253_402_300_799]) {
    const [end = 0] = await endsOf(exp, 1)
    t.ok(end >= exp * 1_000 && end <= (exp + 5) * 1_000)
  }
  t.equal(await reasonOf(sign({ exp: 253_402_300_800 })), "invalid")
})

t.test("missing, invalid and expired are told apart", async (t) => {
  t.equal(await reasonOf(undefined), "missing")
  t.equal(await reasonOf(""), "missing")
  t.equal(await reasonOf(" "), "invalid")
  t.equal(await reasonOf(sign({ exp: seconds() - 60 })), "expired")
  t.equal(await reasonOf(sign({ exp: seconds() - 2 })), "ok", "clocks may differ a little")
  t.equal(await reasonOf(sign({ nbf: seconds() + 2 })), "ok")
  t.equal(await reasonOf(sign({ nbf: seconds() + 60 })), "invalid")
  t.equal(
    await reasonOf(jwt.sign({ exp: seconds() - 60, sub: "7" }, "x".repeat(32))),
    "invalid",
    "another's expired one",
  )
})

t.test("a claim of a wrong type never widens a token", async (t) => {
  const wrong = fc.jsonValue().filter((value) => !Array.isArray(value))
  const property = fc.asyncProperty(
    fc.constantFrom("committees", "elections", "channels", "roles"),
    wrong,
    async (name, value) => (await reasonOf(sign({ [name]: value }))) === "invalid",
  )
  await t.resolves(fc.assert(property, { numRuns: 200 }))
  const element = fc.jsonValue().filter((value) => typeof value !== "string" && !Number.isSafeInteger(value))
  const within = fc.asyncProperty(
    element,
    async (value) => (await reasonOf(sign({ committees: ["1", value] }))) === "invalid",
  )
  await t.resolves(fc.assert(within, { numRuns: 200 }))
  const noName = fc.jsonValue().filter((value) => typeof value !== "string")
  const role = fc.asyncProperty(
    noName,
    fc.constantFrom("role", "roles"),
    async (value, name) =>
      (await reasonOf(sign({ [name]: name === "role" ? value : ["teller", value] }))) === "invalid",
  )
  await t.resolves(fc.assert(role, { numRuns: 200 }))
  t.equal(await reasonOf(sign({ roles: ["x".repeat(129)] })), "invalid")
  t.equal(await reasonOf(sign({ roles: Array(129).fill("x") })), "invalid")
  for (const id of [2 ** 53, -(2 ** 53), 1.5, "", "x".repeat(129)])
    t.equal(await reasonOf(sign({ committees: [id] })), "invalid", String(id))
  t.equal(await reasonOf(sign({ committees: Array(10_001).fill(1) })), "invalid")
})

t.test("what a token can be revoked by is a string, and a time", async (t) => {
  const identified = async (claims: object) => {
    const result = await auth.verify(sign(claims))
    return result.ok ? result.identity : result.reason
  }
  t.match(await identified({ jti: "x".repeat(256), iat: 1.5 }), { jti: "x".repeat(256), issuedAt: 1_500 })
  t.match(await identified({ jti: "" }), { jti: "" })
  for (const jti of [7, null, ["a"], "x".repeat(257)])
    t.equal(await identified({ jti }), "invalid", String(jti))
})

t.test("a lifetime that is no number of this world is no reason to trust a token", async (t) => {
  for (const exp of ["1e308", "-1", "0", "null", "true", '"9999999999"', "[]", "{}"]) {
    const payload = Buffer.from(`{"sub":"7","exp":${exp}}`).toString("base64url")
    const header = Buffer.from('{"alg":"HS256"}').toString("base64url")
    const signature = createHmac("sha256", SECRET).update(`${header}.${payload}`).digest("base64url")
    const result = await auth.verify(`${header}.${payload}.${signature}`)
    t.ok(!result.ok || Number.isFinite(result.identity.expiresAt), exp)
  }
})

t.test("whatever is sent as a token, nothing is thrown", async (t) => {
  const part = fc.oneof(
    fc.string(),
    fc.jsonValue().map((json) => Buffer.from(JSON.stringify(json)).toString("base64url")),
    fc.constant(Buffer.from('{"alg":"HS256"}').toString("base64url")),
  )
  const text = fc.oneof(
    fc.string(),
    fc.array(part, { minLength: 2, maxLength: 4 }).map((parts) => parts.join(".")),
  )
  const property = fc.asyncProperty(text, async (token) => (await reasonOf(token)) !== "ok")
  await t.resolves(fc.assert(property, { numRuns: 1_000 }))
})

const pem = (key: KeyObject) =>
  key.export({ type: key.type === "public" ? "spki" : "pkcs8", format: "pem" }).toString()

/** A token with a header and a signature of one's own. */
const forge = (header: object, payload: object, signature: (text: string) => string) => {
  const text = [header, payload]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".")
  return `${text}.${signature(text)}`
}
const hmac = (secret: string) => (text: string) =>
  createHmac("sha256", secret).update(text).digest("base64url")

t.test("tokens that are good for something else are refused", async (t) => {
  const others: Record<string, unknown> = {
    "SimpleJWT, refresh": { token_type: "refresh" },
    "SimpleJWT, sliding": { token_type: "sliding" },
    "Cognito, id": { token_use: "id" },
    "Cognito, refresh": { token_use: "refresh" },
    "Keycloak, refresh": { typ: "Refresh" },
    "Keycloak, offline": { typ: "Offline" },
    "Keycloak, id": { typ: "ID" },
    "Keycloak, logout": { typ: "Logout" },
    "Flask-JWT-Extended, refresh": { type: "refresh" },
    "OpenID Connect, id": { at_hash: "MTIzNDU2Nzg5MDEyMzQ1Ng" },
    "OpenID Connect, id with a code": { c_hash: "MTIzNDU2Nzg5MDEyMzQ1Ng" },
    "a kind that is no text": { token_type: ["access"] },
  }
  for (const [what, claims] of Object.entries(others))
    t.equal(await reasonOf(sign(claims as object)), "invalid", what)
  for (const claims of [
    { token_type: "access" },
    { token_use: "access" },
    { typ: "Bearer" },
    { type: "access" },
    { type: "observer" },
  ])
    t.equal(await reasonOf(sign(claims)), "ok", JSON.stringify(claims))
})

t.test("a header that asks for something is refused, one that only says something is not", async (t) => {
  const claims = { sub: "7", exp: seconds() + 60 }
  const withHeader = (header: object) => reasonOf(forge({ alg: "HS256", ...header }, claims, hmac(SECRET)))
  for (const typ of [undefined, "JWT", "jwt", "at+jwt", "application/at+jwt"])
    t.equal(await withHeader({ typ }), "ok", typ ?? "no typ")
  for (const typ of ["logout+jwt", "secevent+jwt", "dpop+jwt", "JWE", "", 7, null])
    t.equal(await withHeader({ typ }), "invalid", `typ ${typ}`)
  for (const header of [
    { crit: ["exp"] },
    { crit: ["b64"], b64: false },
    { crit: [] },
    { b64: false },
    { kid: 7 },
    { kid: null },
    { kid: "x".repeat(257) },
    { alg: "hs256" },
    { alg: ["HS256"] },
    { alg: undefined },
    { alg: "HS512" },
  ])
    t.equal(await withHeader(header), "invalid", JSON.stringify(header))
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const jwk = publicKey.export({ format: "jwk" })
  for (const header of [{ kid: "../../../dev/null" }, { jku: "http://127.0.0.1:1/" }, { x5u: "x" }, { jwk }])
    t.equal(await withHeader(header), "ok", `${Object.keys(header)} is not looked at`)
})

t.test("alg none is refused in all letters, signed or not", async (t) => {
  const claims = { sub: "7", exp: seconds() + 60 }
  const spellings = Array.from({ length: 16 }, (_, bits) =>
    [..."none"].map((letter, n) => (bits & (1 << n) ? letter.toUpperCase() : letter)).join(""),
  )
  for (const alg of [...spellings, "none ", " none", "none\0", "", "null", null]) {
    t.equal(await reasonOf(forge({ alg }, claims, () => "")), "invalid", `${alg}`)
    t.equal(await reasonOf(forge({ alg }, claims, hmac(SECRET))), "invalid", `${alg}, signed`)
    t.equal(await reasonOf(forge({ alg }, claims, hmac(""))), "invalid", `${alg}, signed with nothing`)
  }
})

const rsaPair = generateKeyPairSync("rsa", { modulusLength: 2048 })
const ecPair = generateKeyPairSync("ec", { namedCurve: "P-256" })

t.test("while one key follows another, tokens of both count", async (t) => {
  const later = "l".repeat(32)
  const both = make({ JWT_SECRET: later, JWT_SECRET_PREVIOUS: SECRET })
  const claims = { sub: "7", exp: seconds() + 60 }
  t.equal(await reasonOf(jwt.sign(claims, later), both), "ok")
  t.equal(await reasonOf(sign({}), both), "ok")
  t.equal(await reasonOf(sign({ exp: seconds() - 60 }), both), "expired")
  t.equal(await reasonOf(jwt.sign(claims, "x".repeat(32)), both), "invalid")
  t.equal(await reasonOf(sign({}), make({ JWT_SECRET: later })), "invalid")
  const other = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const three = make({ JWT_PUBLIC_KEY: [ecPair, rsaPair, other].map((pair) => pem(pair.publicKey)).join("") })
  const asymmetric = (key: KeyObject, algorithm: jwt.Algorithm) => jwt.sign(claims, key, { algorithm })
  t.equal(await reasonOf(asymmetric(ecPair.privateKey, "ES256"), three), "ok")
  t.equal(await reasonOf(asymmetric(other.privateKey, "ES256"), three), "ok")
  t.equal(await reasonOf(asymmetric(rsaPair.privateKey, "RS256"), three), "ok")
  t.equal(await reasonOf(asymmetric(rsaPair.privateKey, "PS256"), three), "invalid")
  const stranger = generateKeyPairSync("ec", { namedCurve: "P-256" })
  t.equal(await reasonOf(asymmetric(stranger.privateKey, "ES256"), three), "invalid")
})

t.test("the key decides the algorithm", async (t) => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
  const p256 = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const token = (key: KeyObject, algorithm: jwt.Algorithm) =>
    jwt.sign({ sub: "7", exp: seconds() + 60 }, key, { algorithm })
  const ofRsa = make({ JWT_PUBLIC_KEY: pem(rsa.publicKey) })
  const ofEc = make({ JWT_PUBLIC_KEY: pem(p256.publicKey).replaceAll("\n", "\\n") })
  t.equal(await reasonOf(token(rsa.privateKey, "RS256"), ofRsa), "ok")
  t.equal(await reasonOf(token(p256.privateKey, "ES256"), ofEc), "ok")
  for (const algorithm of ["RS384", "RS512", "PS256"] as const)
    t.equal(await reasonOf(token(rsa.privateKey, algorithm), ofRsa), "invalid", algorithm)
  t.equal(await reasonOf(token(rsa.privateKey, "RS256"), ofEc), "invalid")
  t.equal(await reasonOf(token(p256.privateKey, "ES256"), ofRsa), "invalid")
  t.equal(await reasonOf(sign({}), ofRsa), "invalid")
})

t.test("keys of other kinds are refused at the start, by name", async (t) => {
  const refused = (settings: Record<string, string>, message: RegExp) => {
    t.throws(() => make(settings), { name: "ConfigError", message })
    t.throws(() => make(settings), ConfigError)
  }
  const wrong = /^JWT_PUBLIC_KEY \(--jwt-public-key\) is wrong/
  refused({}, /^JWT_SECRET \(--jwt-secret\) is missing/)
  refused({ JWT_PUBLIC_KEY: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----" }, wrong)
  for (const publicKey of [
    generateKeyPairSync("ed25519").publicKey,
    generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey,
    generateKeyPairSync("ec", { namedCurve: "secp256k1" }).publicKey,
    generateKeyPairSync("rsa-pss", { modulusLength: 2048 }).publicKey,
  ])
    refused({ JWT_PUBLIC_KEY: pem(publicKey) }, wrong)
})

t.test("an RSA key under 2048 bits is refused, as RFC 7518 (3.3) demands", async (t) => {
  const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 1024 })
  t.throws(() => make({ JWT_PUBLIC_KEY: pem(publicKey) }), { name: "ConfigError", message: /2048/ })
})

t.test("a private key has no place in the settings of a relay", async (t) => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
  t.throws(() => make({ JWT_PUBLIC_KEY: pem(privateKey) }), { name: "ConfigError", message: /public key/ })
})

t.test("issuer and audience must be the ones that are set", async (t) => {
  const bound = make({ JWT_SECRET: SECRET, JWT_ISSUER: "django", JWT_AUDIENCE: "relay" })
  t.equal(await reasonOf(sign({ iss: "django", aud: "relay" }), bound), "ok")
  t.equal(await reasonOf(sign({ iss: "django", aud: ["x", "relay"] }), bound), "ok")
  for (const claims of [
    {},
    { iss: "django" },
    { aud: "relay" },
    { iss: "django", aud: "rela" },
    { iss: "x", aud: "relay" },
  ])
    t.equal(await reasonOf(sign(claims), bound), "invalid", JSON.stringify(claims))
  t.equal(await reasonOf(sign({ iss: "any", aud: "any" })), "ok", "unset, they do not count")
})
