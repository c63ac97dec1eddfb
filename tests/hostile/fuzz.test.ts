/**
 * Chance at its worst, by a seed that is printed: frames, requests, tokens and messages that are almost right. Whatever
 * comes, the relay answers from what it documents and from nothing else.
 */

import assert from "node:assert/strict"
import fc from "fast-check"
import jwt from "jsonwebtoken"
import t, { type Test } from "tap"
import { CloseCode } from "../../relay/protocol/close-code.ts"
import { database } from "../helpers/database.ts"
import { closing, type FrameOptions, frame, Opcode, say } from "../helpers/frame.ts"
import { newSeed } from "../helpers/random.ts"
import { authenticated, openRaw, type RawClient, upgrade, whenEnded, wordsOf } from "../helpers/raw.ts"
import { NO_LIMITS, startRelay, token } from "../helpers/relay.ts"
import { startWitness } from "../helpers/witness.ts"

const RUNS = Number(process.env.COMMITCAST_FUZZ_RUNS ?? 150)

/** Holds a property of a relay that everybody else goes on using. */
function holds<T>(
  what: string,
  arbitrary: fc.Arbitrary<T>,
  property: (t: Test, url: string, value: T) => Promise<void>,
): void {
  t.test(`${what}, by chance`, async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, { ...NO_LIMITS, AUTH_TIMEOUT_SECONDS: "2" })
    const witness = await startWitness(t, db, relay)
    const seed = newSeed()
    t.comment(`COMMITCAST_TEST_SEED=${seed} COMMITCAST_FUZZ_RUNS=${RUNS}`)
    const run = fc.asyncProperty(arbitrary, (value) => property(t, relay.url, value))
    await witness.through(what, () => fc.assert(run, { numRuns: RUNS, seed }))
  })
}

/** Bytes in pieces, and then the end of this side. */
async function tell(t: Test, url: string, pieces: ReadonlyArray<string | Buffer>): Promise<RawClient> {
  const client = await openRaw(t, url)
  for (const piece of pieces) {
    client.send(piece)
    await new Promise((resolve) => setImmediate(resolve))
  }
  client.socket.end()
  await whenEnded(client)
  client.socket.destroy()
  return client
}

// ------------------------------------------------------------------------------------------- frames

const payload = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom('{"type":"ping"}', '{"type":"pong"}', "{}", "", "x".repeat(126)) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)) },
)
const anyFrame = fc
  .record(
    {
      opcode: fc.oneof(
        { weight: 4, arbitrary: fc.constantFrom(...Object.values(Opcode)) },
        { weight: 1, arbitrary: fc.nat({ max: 15 }) },
      ),
      fin: fc.boolean(),
      reserved: fc.oneof(
        { weight: 9, arbitrary: fc.constant(0) },
        { weight: 1, arbitrary: fc.nat({ max: 7 }) },
      ),
      lengthBytes: fc.constantFrom(8 as const),
    },
    { requiredKeys: [] },
  )
  .chain((options: FrameOptions) => payload.map((data) => frame(data, options)))
const noise = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes))
const conversation = fc
  .tuple(
    fc.array(fc.oneof({ weight: 6, arbitrary: anyFrame }, { weight: 1, arbitrary: noise }), {
      maxLength: 12,
    }),
    fc.array(fc.nat({ max: 4_000 }), { maxLength: 6 }),
  )
  .map(([frames, cuts]) => inPieces(Buffer.concat(frames), cuts))

function inPieces(bytes: Buffer, cuts: number[]): Buffer[] {
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end))
}

const echoed = (code: number) => (code >= 1000 && code <= 1014) || (code >= 3000 && code <= 4999)
/** What the relay may say, but for the codes with which it closes. */
const SAYS =
  /^(connection_success|(un)?subscribed.*|authenticated.*|pong.*|PONG.*|error (bad_message|unknown_type|not_authenticated|not_started|forbidden_channel|not_subscribed|other_user|busy)|close empty)$/s

/** @param codes those with which a connection may be closed. */
function documented(words: string[], codes: (code: number) => boolean): void {
  const closes = words.filter((word) => word.startsWith("close "))
  const strange = words.filter(
    (word) => !SAYS.test(word) && !(word.startsWith("close ") && codes(Number(word.slice(6)))),
  )
  assert.deepEqual(strange, [])
  assert.ok(
    closes.length <= 1 && (closes.length === 0 || words.at(-1) === closes[0]),
    `the last word is the close: ${words}`,
  )
}

holds("frames", conversation, async (t, url, pieces) => {
  const client = await tell(t, url, [authenticated(), ...pieces])
  documented(wordsOf(client), echoed)
})

// ------------------------------------------------------------------------------------------- requests

const edit = fc.record({
  at: fc.nat({ max: 2_000 }),
  remove: fc.constantFrom(0, 0, 1, 2, 30),
  insert: fc.oneof(
    fc.constantFrom(
      "\r",
      "\n",
      "\r\n",
      "\0",
      ":",
      " ",
      "\t",
      ",",
      "/",
      "..",
      "%",
      "%00",
      "?",
      "#",
      "\\",
      "Host: a\r\n",
      "Content-Length: 3\r\n",
    ),
    fc.string({ unit: "binary-ascii", maxLength: 5 }),
    fc.constant(""),
  ),
})
/** With 200: an edit may ask for the page. */
const STATUSES = [101, 200, 400, 401, 403, 404, 405, 408, 417, 426, 431]

holds("requests", fc.array(edit, { minLength: 1, maxLength: 4 }), async (t, url, edits) => {
  let request = authenticated()
  for (const { at, remove, insert } of edits) {
    const place = at % (request.length + 1)
    request = request.slice(0, place) + insert + request.slice(place + remove)
  }
  const client = await tell(t, url, [request])
  const text = client.received().toString("latin1")
  const status = /^HTTP\/1\.1 (\d+) /.exec(text)?.[1]
  if (text !== "")
    assert.ok(
      STATUSES.includes(Number(status)),
      `${JSON.stringify(text.slice(0, 100))} for ${JSON.stringify(request)}`,
    )
})

// ------------------------------------------------------------------------------------------- tokens

const GOOD = token({ sub: "hostile", committees: [1] })
const [HEAD, BODY] = GOOD.split(".")
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")
const letters = fc.string({ unit: fc.constantFrom(..."abcABC019-_.=".split("")), maxLength: 4 })
const forged = fc.oneof(
  fc.tuple(fc.nat(), fc.nat({ max: 3 }), letters).map(([at, remove, insert]) => {
    const place = at % GOOD.length
    return GOOD.slice(0, place) + insert + GOOD.slice(place + remove)
  }),
  fc
    .tuple(
      fc.record(
        {
          alg: fc.constantFrom("none", "HS256", "RS256", "hs256", "", "ES256"),
          typ: fc.constant("JWT"),
          kid: fc.string(),
          crit: fc.array(fc.string()),
        },
        { requiredKeys: [] },
      ),
      fc.oneof(fc.constant({ sub: "7", exp: 9_999_999_999, role: "admin" }), fc.jsonValue()),
      fc.constantFrom("", GOOD.split(".")[2] ?? "", "AAAA"),
    )
    .map(([head, body, signature]) => `${encode(head)}.${encode(body)}.${signature}`),
  fc
    .tuple(fc.string({ minLength: 1 }), fc.constantFrom<jwt.Algorithm>("HS256", "HS384", "HS512"))
    .map(([secret, algorithm]) =>
      jwt.sign({ sub: "7", exp: 9_999_999_999, role: "admin" }, secret, { algorithm }),
    ),
  fc.string({ unit: fc.constantFrom(..."abc.-_=".split("")), maxLength: 200 }),
)
const ways = fc.constantFrom<(text: string) => Array<string | Buffer>>(
  (text) => [upgrade("GET /ws HTTP/1.1", { Authorization: `Bearer ${text}` })],
  (text) => [upgrade(`GET /ws?token=${encodeURIComponent(text)} HTTP/1.1`)],
  (text) => [upgrade(), say({ type: "authenticate", token: text })],
)

holds("tokens", fc.tuple(forged, ways), async (t, url, [text, way]) => {
  const client = await tell(t, url, [...way(text), closing(1000)])
  const words = wordsOf(client)
  const genuine = text.startsWith(`${HEAD}.${BODY}.`)
  assert.ok(genuine || !words.includes("connection_success"), JSON.stringify(text))
  documented(
    words,
    (code) => code === 1000 || code === CloseCode.invalidToken || code === CloseCode.tokenExpired,
  )
})

// ------------------------------------------------------------------------------------------- messages

const channel = fc.oneof(
  fc.constantFrom("committee:1", "election_updates", "user:8", "a", "A", "committee:"),
  fc.string({ maxLength: 20 }),
)
const cursor = fc.oneof(
  fc.constantFrom(
    "",
    ":",
    "::",
    "0:1:1:",
    "0123456789ab:5:5:",
    "0123456789ab:5:4:9,9",
    "x:18446744073709551616:1:",
    "x:-1:1:",
    "x:1:1:,,,",
  ),
  fc.string({ maxLength: 40 }),
)
const odd = fc.oneof(
  fc.jsonValue(),
  fc.constantFrom<unknown>("__proto__", "constructor", -0, "x".repeat(9_000)),
)
const message = fc.oneof(
  fc
    .record(
      {
        type: fc.oneof(
          fc.constantFrom("ping", "pong", "subscribe", "unsubscribe", "authenticate", "toString"),
          odd,
        ),
        channels: fc.oneof(fc.array(channel, { maxLength: 5 }), odd),
        cursor: fc.oneof(cursor, odd),
        request: fc.oneof(fc.nat(), odd),
        token: fc.oneof(fc.constant(GOOD), odd),
        where: odd,
        types: odd,
        actions: odd,
      },
      { requiredKeys: ["type"] },
    )
    .map((value) => JSON.stringify(value)),
  fc.json(),
  fc.constantFrom(
    '{"__proto__":{"type":"ping"}}',
    '{"type":"ping","type":"pong"}',
    '{"type":"ping","request":1e400}',
    "[".repeat(8_000),
    '{"a":'.repeat(3_000),
    "\u2028",
    "NaN",
    "null",
    '"',
  ),
  fc.string(),
)
const MESSAGE_CODES: number[] = [1000, 1009, ...Object.values(CloseCode)]

holds("messages", fc.array(message, { maxLength: 30 }), async (t, url, messages) => {
  const client = await tell(t, url, [authenticated(), ...messages.map((text) => frame(text)), closing(1000)])
  const words = wordsOf(client)
  // Who says goodbye, or too much at once, while the token is checked does not come in at all.
  if (!words[0]?.startsWith("close ")) assert.equal(words[0], "connection_success")
  documented(words, (code) => MESSAGE_CODES.includes(code))
})
