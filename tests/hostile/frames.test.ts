/**
 * Frames to the byte: the cases of the Autobahn suite that a relay of JSON text can be asked, each sent at once and a byte at
 * a time. A case is a line: what it is, the bytes behind the upgrade, what the relay answers. A ping that each of them ends with tells whether it goes on.
 */

import t, { type Test } from "tap"
import { database } from "../helpers/database.ts"
import { closing, type FrameOptions, fragments, frame, Opcode, say } from "../helpers/frame.ts"
import { authenticated, openRaw, wordsUntil } from "../helpers/raw.ts"
import { NO_LIMITS, startRelay } from "../helpers/relay.ts"
import { startWitness } from "../helpers/witness.ts"

/** What comes back: the answers, then either of these. */
type Case = [what: string, bytes: Buffer | Buffer[], ...answers: string[]]

const GOES_ON = "pong probe"
const PROBE = say({ type: "ping", request: "probe" })
const LIMIT = 16_384

const { continuation, text, binary, ping, pong, close } = Opcode
const control = (opcode: number, payload: string | Buffer, options: FrameOptions = {}) =>
  frame(payload, { opcode, ...options })
/** A ping of the protocol, padded to a length. */
const padded = (length: number, request = "p") => {
  const message = JSON.stringify({ type: "ping", request })
  return message + " ".repeat(length - message.length)
}
const empty = (count: number, options: FrameOptions) =>
  Array.from({ length: count }, (_, index) =>
    frame("", { ...options, opcode: index === 0 ? text : continuation, fin: false }),
  )
const hex = (bytes: string) => Buffer.from(bytes, "hex")
/** A message whose request is these bytes. */
const asking = (bytes: Buffer | string) =>
  Buffer.concat([Buffer.from('{"type":"ping","request":"'), Buffer.from(bytes), Buffer.from('"}')])
const halves = (bytes: Buffer, at: number) => [bytes.subarray(0, at), bytes.subarray(at)]

const LENGTHS: Case[] = [
  ["no bytes", frame(""), "error bad_message", GOES_ON],
  ...[29, 125, 126, 127, 128, 255, 4_096, LIMIT - 1, LIMIT].map(
    (length): Case => [`${length} bytes`, frame(padded(length)), "pong p", GOES_ON],
  ),
  ["a short length in two bytes", frame(padded(60), { lengthBytes: 2 }), "pong p", GOES_ON],
  ["a short length in eight bytes", frame(padded(60), { lengthBytes: 8 }), "pong p", GOES_ON],
  ["no bytes, said in two", frame("", { lengthBytes: 2 }), "error bad_message", GOES_ON],
  ["no bytes, said in eight", frame("", { lengthBytes: 8 }), "error bad_message", GOES_ON],
  ["the limit in eight bytes", frame(padded(LIMIT), { lengthBytes: 8 }), "pong p", GOES_ON],
  ["a byte beyond the limit", frame(padded(LIMIT + 1)), "close 1009"],
  ["65,535 bytes", frame(padded(65_535)), "close 1009"],
  ["65,536 bytes", frame(padded(65_536)), "close 1009"],
  ["a header that says too much, and no more", frame("", { declared: 16_385n }), "close 1009"],
  ...[2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n].map(
    (declared): Case => [
      `a header that says ${declared}`,
      frame("", { declared, lengthBytes: 8 }),
      "close 1009",
    ],
  ),
  ["binary", frame("{}", { opcode: binary }), "close 4501"],
  ["binary without bytes", frame("", { opcode: binary }), "close 4501"],
  ["binary beyond the limit", frame(Buffer.alloc(LIMIT + 1), { opcode: binary }), "close 1009"],
]

const BITS: Case[] = [
  ...[1, 2, 3, 4, 5, 6, 7].map(
    (reserved): Case => [`reserved bits ${reserved}`, frame(padded(40), { reserved }), "close 1002"],
  ),
  ...[1, 4].map(
    (reserved): Case => [`a ping with ${reserved}`, control(ping, "", { reserved }), "close 1002"],
  ),
  ["reserved bits on a close frame", control(close, hex("03e8"), { reserved: 4 }), "close 1002"],
  [
    "reserved bits on a continuation",
    [frame("{", { fin: false }), frame("}", { opcode: continuation, reserved: 4 })],
    "close 1002",
  ],
  ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(
    (opcode): Case => [`opcode ${opcode}`, frame("{}", { opcode }), "close 1002"],
  ),
  ["opcode 3 without bytes", frame("", { opcode: 3 }), "close 1002"],
  [
    "a message, then opcode 5",
    [say({ type: "ping", request: 1 }), frame("", { opcode: 5 })],
    "pong 1",
    "close 1002",
  ],
  ["not masked", frame(padded(40), { mask: null }), "close 1002"],
  ["a ping, not masked", control(ping, "", { mask: null }), "close 1002"],
  ["a close frame, not masked", control(close, hex("03e8"), { mask: null }), "close 1002"],
  ["masked with zeros", frame(padded(40), { mask: Buffer.alloc(4) }), "pong p", GOES_ON],
  ["masked with ones", frame(padded(40), { mask: Buffer.alloc(4, 255) }), "pong p", GOES_ON],
  ["HTTP where frames belong", Buffer.from("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"), "close 1002"],
]

const CONTROL: Case[] = [
  ["a ping", control(ping, ""), "PONG", GOES_ON],
  ["a ping with a word", control(ping, "hello"), "PONG hello", GOES_ON],
  ["a ping of 125 bytes", control(ping, "x".repeat(125)), `PONG ${"x".repeat(125)}`, GOES_ON],
  ["a ping of 126 bytes", control(ping, "x".repeat(126)), "close 1002"],
  [
    "a ping of 126 bytes that says 125",
    control(ping, "x".repeat(126), { declared: 125n }),
    `PONG ${"x".repeat(125)}`,
    "close 1002",
  ],
  ["a short ping with a long length", control(ping, "x", { lengthBytes: 2 }), "close 1002"],
  [
    "a ping in fragments",
    [control(ping, "a", { fin: false }), frame("b", { opcode: continuation })],
    "close 1002",
  ],
  ["a pong in fragments", control(pong, "a", { fin: false }), "close 1002"],
  ["a pong that nobody asked for", control(pong, "hello"), GOES_ON],
  ["a pong of 126 bytes", control(pong, "x".repeat(126)), "close 1002"],
  ["ten pings", Array(10).fill(control(ping, "n")), ...Array(10).fill("PONG n"), GOES_ON],
  ["a thousand pongs", Array(1_000).fill(control(pong, "")), GOES_ON],
]

const FRAGMENTS: Case[] = [
  ["two fragments", fragments(halves(Buffer.from(padded(40)), 10) as Buffer[]), "pong p", GOES_ON],
  ["16 fragments", fragments(Array.from(padded(16 * 3).match(/.{3}/g) ?? [])), "pong p", GOES_ON],
  ["17 fragments", fragments(Array.from(padded(17 * 3).match(/.{3}/g) ?? [])), "close 1008"],
  ["fragments without bytes before and after", fragments(["", padded(40), ""]), "pong p", GOES_ON],
  ["nothing, in three fragments", fragments(["", "", ""]), "error bad_message", GOES_ON],
  ["fragments without bytes, without end", empty(1_000, {}), "close 1008"],
  ["fragments up to the limit", fragments([padded(LIMIT - 10), " ".repeat(10)]), "pong p", GOES_ON],
  ["fragments beyond the limit", fragments([padded(LIMIT), " "]), "close 1009"],
  ["binary in fragments", fragments(["{", "}"], binary), "close 4501"],
  [
    "pings between fragments",
    [
      frame('{"type":', { fin: false }),
      control(ping, "1"),
      frame('"ping",', { opcode: continuation, fin: false }),
      control(ping, "2"),
      frame('"request":1}', { opcode: continuation }),
    ],
    "PONG 1",
    "PONG 2",
    "pong 1",
    GOES_ON,
  ],
  [
    "a pong between fragments",
    [frame("{", { fin: false }), control(pong, "1"), frame("}", { opcode: continuation })],
    "error unknown_type",
    GOES_ON,
  ],
  [
    "a close frame between fragments",
    [frame("{", { fin: false }), closing(1000), frame("}", { opcode: continuation })],
    "close 1000",
  ],
  ["a continuation of nothing", frame("{}", { opcode: continuation }), "close 1002"],
  ["a continuation of nothing that goes on", frame("{}", { opcode: continuation, fin: false }), "close 1002"],
  [
    "a continuation after a whole message",
    [say({ type: "ping", request: 1 }), frame("{}", { opcode: continuation })],
    "pong 1",
    "close 1002",
  ],
  [
    "a continuation after the last",
    [fragments(["{", "}"]), frame("", { opcode: continuation })],
    "error unknown_type",
    "close 1002",
  ],
  ["a message within a message", [frame("{", { fin: false }), say({ type: "ping" })], "close 1002"],
  [
    "the beginning of a message within a message",
    [frame("{", { fin: false }), frame("{", { fin: false })],
    "close 1002",
  ],
  ["binary within text", [frame("{", { fin: false }), frame("}", { opcode: binary })], "close 1002"],
]

const VALID: [what: string, bytes: string][] = [
  ["two bytes", "c3a9"],
  ["three bytes", "e282ac"],
  ["four bytes", "f09d849e"],
  ["the first of two bytes", "c280"],
  ["the last of two bytes", "dfbf"],
  ["the first of three bytes", "e0a080"],
  ["below the surrogates", "ed9fbf"],
  ["above the surrogates", "ee8080"],
  ["the last of three bytes", "efbfbf"],
  ["the first of four bytes", "f0908080"],
  ["the last of all", "f48fbfbf"],
  ["no character", "efb790"],
  ["a byte order mark", "efbbbf"],
]

const INVALID: [what: string, bytes: string][] = [
  ["a continuation alone", "80"],
  ["the beginning of two", "c3"],
  ["the beginning of three", "e282"],
  ["the beginning of four", "f09d84"],
  ["a slash in two bytes", "c0af"],
  ["a slash in three bytes", "e080af"],
  ["a slash in four bytes", "f08080af"],
  ["NUL in two bytes", "c080"],
  ["the longest overlong of two bytes", "c1bf"],
  ["the longest overlong of three bytes", "e09fbf"],
  ["the longest overlong of four bytes", "f08fbfbf"],
  ["the first surrogate", "eda080"],
  ["the last surrogate", "edbfbf"],
  ["a pair of surrogates", "eda081edb080"],
  ["beyond the last", "f4908080"],
  ["five bytes", "f888808080"],
  ["six bytes", "fc8480808080"],
  ["FE", "fe"],
  ["FF", "ff"],
  ["Latin-1", "e9"],
]

const UTF8: Case[] = [
  ...VALID.flatMap(([what, bytes]): Case[] => {
    const answer = `pong ${hex(bytes).toString()}`
    const message = asking(hex(bytes))
    return [
      [`UTF-8: ${what}`, frame(message), answer, GOES_ON],
      // Within the character: it begins at byte 26.
      [`UTF-8: ${what}, cut by a fragment`, fragments(halves(message, 27)), answer, GOES_ON],
    ]
  }),
  ...INVALID.flatMap(([what, bytes]): Case[] => [
    [`UTF-8: ${what}`, frame(asking(hex(bytes))), "close 1007"],
    [`UTF-8: ${what}, cut by a fragment`, fragments(halves(asking(hex(bytes)), 27)), "close 1007"],
    [`UTF-8: ${what} as the reason of a close`, closing(1000, hex(bytes)), "close 1007"],
  ]),
  [
    "a message that begins with a byte order mark",
    frame(Buffer.concat([hex("efbbbf"), Buffer.from(padded(30))])),
    "error bad_message",
    GOES_ON,
  ],
  ["text that ends within a character", frame(hex("7b7dc3")), "close 1007"],
]

const code = (number: number): Case => [`close ${number}`, closing(number), `close ${number}`]
const CLOSE: Case[] = [
  ["close without a code", closing(), "close empty"],
  ...[1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999].map(
    code,
  ),
  ...[0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535].map(
    (number): Case => [`close ${number}, which is none`, closing(number), "close 1002"],
  ),
  ["close with one byte", control(close, hex("03")), "close 1002"],
  ["close with a reason", closing(1000, "bye"), "close 1000"],
  ["close with the longest reason", closing(1000, "x".repeat(123)), "close 1000"],
  ["close with a reason that is too long", closing(1000, "x".repeat(124)), "close 1002"],
  ["close in fragments", control(close, hex("03e8"), { fin: false }), "close 1002"],
  ["close twice", [closing(1000), closing(1001)], "close 1000"],
  ["a message after close", [closing(1000), say({ type: "ping", request: 1 })], "close 1000"],
  ["a ping after close", [closing(1000), control(ping, "late")], "close 1000"],
  ["garbage after close", [closing(1000), Buffer.alloc(1_000, 0xff)], "close 1000"],
  ["a message before close", [say({ type: "ping", request: 1 }), closing(1000)], "pong 1", "close 1000"],
  ["much after a broken frame", [frame("", { opcode: 3 }), Buffer.alloc(100_000, 0x81)], "close 1002"],
]

/** Bytes that are handed over one by one; the rest of a long case follows at once. */
const DRIBBLED = 200

async function ask(t: Test, url: string, [, bytes]: Case, slowly: boolean): Promise<string[]> {
  const all = Buffer.concat([bytes, PROBE].flat())
  const client = await openRaw(t, url)
  client.send(authenticated())
  // What comes while the token is checked waits for it, but for a broken frame, which ends it at once.
  await wordsUntil(client, "connection_success")
  if (slowly) await client.dribble(all.subarray(0, DRIBBLED))
  client.send(slowly ? all.subarray(DRIBBLED) : all)
  const words = await wordsUntil(client, GOES_ON)
  // Whoever goes on hangs up without a word; the others keep their end open, and the relay must end it by itself.
  if (words.at(-1) === GOES_ON) client.socket.destroy()
  return words
}

for (const [name, cases] of Object.entries({ LENGTHS, BITS, CONTROL, FRAGMENTS, UTF8, CLOSE })) {
  t.test(`${name.toLowerCase()}, at once and a byte at a time`, async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, NO_LIMITS)
    const witness = await startWitness(t, db, relay)
    await witness.through(name.toLowerCase(), async () => {
      for (const each of cases) {
        const [what, , ...answers] = each
        const expected = ["connection_success", ...answers]
        t.strictSame(await ask(t, relay.url, each, false), expected, what)
        t.strictSame(await ask(t, relay.url, each, true), expected, `${what}, a byte at a time`)
      }
    })
  })
}
