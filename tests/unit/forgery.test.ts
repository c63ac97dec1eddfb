/** Forged tokens: whatever is made of a good one, only the token itself is let in. */

import { createHmac, generateKeyPairSync, type KeyObject } from "node:crypto"
import fc from "fast-check"
import jwt from "jsonwebtoken"
import t from "tap"
import { createAuth } from "../../relay/access/auth.ts"
import { settledKeys } from "../../relay/access/keys.ts"
import { readSettings } from "../../relay/config.ts"

const SECRET = "s".repeat(32)
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const p256 = generateKeyPairSync("ec", { namedCurve: "P-256" })
const pem = (key: KeyObject) => key.export({ type: "spki", format: "pem" }).toString()
const hmac = (secret: string, text: string) => createHmac("sha256", secret).update(text).digest("base64url")

/** Makes something else of the parts of a token. */
type Edit = (parts: string[]) => string[]

const ALGORITHMS = ["HS256", "HS384", "HS512", "RS256", "RS512", "PS256", "ES256", "ES384", "none", "None"]
const SECRETS = ["", "none", pem(rsa.publicKey), pem(rsa.publicKey).trim(), pem(p256.publicKey)]

const decode = (part: string) => Buffer.from(part, "base64url")
const encode = (bytes: Buffer | string) => Buffer.from(bytes).toString("base64url")
const replace = (parts: string[], n: number, part: string) =>
  parts.map((each, index) => (index === n ? part : each))

function merge(part: string, more: object): string {
  try {
    return encode(JSON.stringify({ ...JSON.parse(decode(part).toString()), ...more }))
  } catch {
    return encode(JSON.stringify(more))
  }
}

const anyPart = fc.nat({ max: 2 })

const flip = fc.tuple(anyPart, fc.nat(), fc.integer({ min: 1, max: 255 })).map(
  ([n, where, bits]): Edit =>
    (parts) => {
      const bytes = decode(parts[n] ?? "")
      if (bytes.length > 0) bytes[where % bytes.length] = (bytes[where % bytes.length] ?? 0) ^ bits
      return replace(parts, n, encode(bytes))
    },
)

const splice = fc.tuple(anyPart, fc.nat(), fc.nat({ max: 3 }), fc.stringMatching(/^[\w=+/. -]{0,3}$/)).map(
  ([n, where, less, more]): Edit =>
    (parts) => {
      const text = parts[n] ?? ""
      const from = where % (text.length + 1)
      return replace(parts, n, text.slice(0, from) + more + text.slice(from + less))
    },
)

const header = fc
  .record(
    {
      alg: fc.constantFrom(...ALGORITHMS),
      kid: fc.constantFrom("x", "", "../x"),
      crit: fc.constant(["exp"]),
      b64: fc.boolean(),
      typ: fc.constantFrom("JWT", "at+jwt", "x"),
    },
    { requiredKeys: [] },
  )
  .map(
    (more): Edit =>
      (parts) =>
        replace(parts, 0, merge(parts[0] ?? "", more)),
  )

const payload = fc
  .record(
    {
      sub: fc.constantFrom("7", "8", 8, null),
      exp: fc.constantFrom(9_999_999_999, null, "x"),
      committees: fc.constantFrom(["1"], ["1", "2"], null),
      role: fc.constant("admin"),
    },
    { requiredKeys: [] },
  )
  .map(
    (more): Edit =>
      (parts) =>
        replace(parts, 1, merge(parts[1] ?? "", more)),
  )

const sign = fc.constantFrom(...SECRETS).map(
  (secret): Edit =>
    (parts) =>
      replace(parts, 2, hmac(secret, `${parts[0]}.${parts[1]}`)),
)

function swapHalves(parts: string[]): string[] {
  const bytes = decode(parts[2] ?? "")
  const half = bytes.length / 2
  return replace(parts, 2, encode(Buffer.concat([bytes.subarray(half), bytes.subarray(0, half)])))
}

const reshape = fc.constantFrom<Edit>(
  (parts) => replace(parts, 2, ""),
  swapHalves,
  (parts) => [...parts, parts.at(-1) ?? ""],
  (parts) => parts.slice(0, 2),
  (parts) => [...parts].reverse(),
  (parts) => parts,
)

const edits = fc.array(fc.oneof(flip, splice, header, payload, sign, reshape), { minLength: 1, maxLength: 3 })

/** What a token is to whoever checks it: the last character of an RS256 or ES256 signature has bits that do not count. */
function meaning(token: string): string {
  const [head, body, signature = "", ...more] = token.split(".")
  return JSON.stringify([head, body, /^[\w-]*$/.test(signature) && decode(signature).toString("hex"), more])
}

const KINDS: Array<[algorithm: jwt.Algorithm, key: jwt.Secret, settings: Record<string, string>]> = [
  ["HS256", SECRET, { JWT_SECRET: SECRET }],
  ["RS256", rsa.privateKey, { JWT_PUBLIC_KEY: pem(rsa.publicKey) }],
  ["ES256", p256.privateKey, { JWT_PUBLIC_KEY: pem(p256.publicKey) }],
]

for (const [algorithm, key, given] of KINDS) {
  t.test(
    `of all that can be made of a good ${algorithm} token, nothing is let in but the token`,
    async (t) => {
      const settings = readSettings(given)
      const auth = createAuth(settledKeys(settings), settings)
      const exp = Math.floor(Date.now() / 1_000) + 3_600
      const good = jwt.sign({ sub: "7", exp, committees: ["1"] }, key, { algorithm, noTimestamp: true })
      t.match(await auth.verify(good), { ok: true })
      const property = fc.asyncProperty(edits, async (changes) => {
        const token = changes.reduce((parts, change) => change(parts), good.split(".")).join(".")
        const { ok } = await auth.verify(token)
        return ok ? meaning(token) === meaning(good) : token !== good
      })
      await t.resolves(fc.assert(property, { numRuns: 2_000 }))
    },
  )
}
