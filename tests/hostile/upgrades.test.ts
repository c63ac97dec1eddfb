/**
 * Requests to the byte: what becomes a connection, and what becomes of everything else. A case is a line: what it is, the
 * bytes, and all that comes back: the status of each answer in turn, and `cut` where the socket is then closed.
 */

import t from "tap"
import { database } from "../helpers/database.ts"
import { GET, type Headers, openRaw, type RawClient, statusLine, upgrade, whenEnded } from "../helpers/raw.ts"
import { metricOf, NO_LIMITS, startRelay, token } from "../helpers/relay.ts"
import { startWitness } from "../helpers/witness.ts"

type Case = [what: string, bytes: string, ...answers: Array<number | "cut">]

const KEY = Buffer.alloc(16, 1).toString("base64")
const to = (target: string, headers?: Headers) => upgrade(`GET ${target} HTTP/1.1`, headers)
const as = (line: string, headers?: Headers) => upgrade(line, headers)
const having = (headers: Headers) => upgrade(GET, headers)
const plain = (target: string, more = "") => `GET ${target} HTTP/1.1\r\nHost: relay.example\r\n${more}\r\n`
/** Lines that no header function would write. */
const raw = (lines: string) => upgrade(GET).replace("\r\n\r\n", `\r\n${lines}\r\n\r\n`)
const many = (count: number) => "a:\r\n".repeat(count)

const LINES: Case[] = [
  ["as it should be", upgrade(), 101],
  ["POST", as("POST /ws HTTP/1.1"), 405, "cut"],
  ["POST with a body", `${as("POST /ws HTTP/1.1", { "Content-Length": "2" })}{}`, 405, "cut"],
  ["HEAD", as("HEAD /ws HTTP/1.1"), 405, "cut"],
  ["OPTIONS of everything", as("OPTIONS * HTTP/1.1"), 400, "cut"],
  ["CONNECT", as("CONNECT relay.example:80 HTTP/1.1"), "cut"],
  ["a method in small letters", as("get /ws HTTP/1.1"), 400, "cut"],
  ["a method that is none", as("HACK /ws HTTP/1.1"), 400, "cut"],
  ["HTTP/1.0", as("GET /ws HTTP/1.0"), 400, "cut"],
  ["HTTP/0.9", as("GET /ws HTTP/0.9"), 400, "cut"],
  ["HTTP/1.2", as("GET /ws HTTP/1.2"), 400, "cut"],
  ["HTTP/2.0", as("GET /ws HTTP/2.0"), 400, "cut"],
  ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "cut"],
  ["no version of HTTP", "GET /ws\r\n\r\n", 400, "cut"],
  ["a hello of TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "cut"],
  ["empty lines and zeros", "\r\n\r\n\0\0\0\r\n\r\n", 400, "cut"],
  ["a line with two targets", as("GET /ws /ws HTTP/1.1"), 400, "cut"],
  ["a line without a target", as("GET HTTP/1.1"), 400, "cut"],
]

const TARGETS: Case[] = [
  ["with a slash behind", to("/ws/"), 101],
  ["a whole URL", to("http://relay.example/ws"), 101],
  ["a whole URL with a query", to("HTTPS://relay.example:443/ws?a=b"), 101],
  ["a whole URL without a path", to("http://relay.example"), 400, "cut"],
  ["a whole URL of another path", to("http://relay.example/"), 404, "cut"],
  ["a URL of files", to("file:///ws"), 400, "cut"],
  ["a URL of sockets", to("ws://relay.example/ws"), 400, "cut"],
  ["a URL of scripts", to("javascript:/ws"), 400, "cut"],
  ["a host that is none", to("http://[/ws"), 400, "cut"],
  ["a port that is none", to("http://a:99999/ws"), 400, "cut"],
  ["a host and a port", to("relay.example:80"), 400, "cut"],
  ["no slash", to("ws"), 400, "cut"],
  ["an asterisk", to("*"), 400, "cut"],
  ["two slashes", to("//"), 400, "cut"],
  ["two slashes before it", to("//ws"), 400, "cut"],
  ["two slashes behind it", to("/ws//"), 404, "cut"],
  ["a host in the path", to("//relay.example/ws"), 400, "cut"],
  ["dots up", to("/x/../ws"), 400, "cut"],
  ["dots that go nowhere", to("/./ws"), 400, "cut"],
  ["dots beyond the root", to("/../ws"), 400, "cut"],
  ["dots behind it", to("/ws/../health/live"), 400, "cut"],
  ["dots, encoded", to("/x/%2e%2e/ws"), 400, "cut"],
  ["dots and a slash, encoded", to("/x/..%2fws"), 404, "cut"],
  ["dots, encoded twice", to("/x/%252e%252e/ws"), 404, "cut"],
  ["backslashes", to("/x\\..\\ws"), 400, "cut"],
  ["a backslash before it", to("/\\ws"), 400, "cut"],
  ["a letter encoded", to("/w%73"), 404, "cut"],
  ["a slash encoded", to("%2fws"), 400, "cut"],
  ["a question mark encoded", to("/ws%3ftoken=x"), 404, "cut"],
  ["a zero encoded", to("/ws%00"), 404, "cut"],
  ["a line's end encoded", to("/ws%0d%0aX:%20y"), 404, "cut"],
  ["a broken percent", to("/ws%zz"), 404, "cut"],
  ["large letters", to("/WS"), 404, "cut"],
  ["a parameter of the path", to("/ws;a=b"), 404, "cut"],
  ["a fragment", to("/ws#top"), 400, "cut"],
  ["a fragment in the query", to("/ws?a#token=x"), 400, "cut"],
  ["bytes beyond ASCII", to("/w\xe9"), 400, "cut"],
  ["a zero", to("/ws\0"), 400, "cut"],
  ["a tab", to("/w\ts"), 400, "cut"],
  ["a carriage return", to("/ws\rX"), 400, "cut"],
  ["a broken percent in the query", to("/ws?token=%zz&channels=%"), 400, "cut"],
  ["bytes that are no UTF-8 in the query", to("/ws?cursor=%ff%fe"), 101],
  ["a channel that is none", to("/ws?channels=A"), 400, "cut"],
  ["a channel with a space", to("/ws?channels=committee:1%202"), 400, "cut"],
  ["a channel of 300 letters", to(`/ws?channels=a:${"x".repeat(300)}`), 400, "cut"],
  ["a long URL", to(`/ws?cursor=${"x".repeat(15_000)}`), 101],
  ["a longer URL", to(`/ws?cursor=${"x".repeat(16_384)}`), 431, "cut"],
  ["a URL of a megabyte", to(`/ws?cursor=${"x".repeat(1_048_576)}`), 431, "cut"],
  ["a thousand parameters", to(`/ws?${"a=b&".repeat(1_000)}`), 101],
]

const HEADERS: Case[] = [
  ["no key", having({ "Sec-WebSocket-Key": null }), 400, "cut"],
  ["an empty key", having({ "Sec-WebSocket-Key": "" }), 400, "cut"],
  ["a key of 15 bytes", having({ "Sec-WebSocket-Key": Buffer.alloc(15, 1).toString("base64") }), 400, "cut"],
  ["a key of 17 bytes", having({ "Sec-WebSocket-Key": Buffer.alloc(17, 1).toString("base64") }), 400, "cut"],
  ["a key that is no base64", having({ "Sec-WebSocket-Key": `${"*".repeat(22)}==` }), 400, "cut"],
  ["two keys", having({ "Sec-WebSocket-Key": [KEY, KEY] }), 400, "cut"],
  ["two keys in a line", having({ "Sec-WebSocket-Key": `${KEY}, ${KEY}` }), 400, "cut"],
  ["no version", having({ "Sec-WebSocket-Version": null }), 426, "cut"],
  ["version 7", having({ "Sec-WebSocket-Version": "7" }), 426, "cut"],
  [
    "version 8, whose origin has another header",
    having({ "Sec-WebSocket-Version": "8", "Sec-WebSocket-Origin": "https://evil.example" }),
    426,
    "cut",
  ],
  ["version 14", having({ "Sec-WebSocket-Version": "14" }), 426, "cut"],
  ["version 13 in other figures", having({ "Sec-WebSocket-Version": "0x0d" }), 426, "cut"],
  ["version 13, twice", having({ "Sec-WebSocket-Version": ["13", "13"] }), 426, "cut"],
  ["versions 13 and 8", having({ "Sec-WebSocket-Version": "13, 8" }), 426, "cut"],
  ["no host", having({ Host: null }), 400, "cut"],
  ["an empty host", having({ Host: "" }), 101],
  ["two hosts", having({ Host: ["relay.example", "evil.example"] }), 400, "cut"],
  ["the same host twice", having({ Host: ["relay.example", "relay.example"] }), 400, "cut"],
  ["two upgrades", having({ Upgrade: ["websocket", "h2c"] }), 426, "cut"],
  ["a list of upgrades", having({ Upgrade: "websocket, h2c" }), 426, "cut"],
  ["another upgrade", having({ Upgrade: "h2c" }), 426, "cut"],
  ["an upgrade in large letters", having({ Upgrade: "WebSocket" }), 101],
  ["connection: close, upgrade", having({ Connection: "close, Upgrade" }), 101],
  ["no connection: upgrade", having({ Connection: "close" }), 426, "cut"],
  ["two origins", having({ Origin: ["https://relay.example", "https://evil.example"] }), 403, "cut"],
  ["a list of origins", having({ Origin: "https://relay.example, https://evil.example" }), 403, "cut"],
  ["a subprotocol list with a hole", having({ "Sec-WebSocket-Protocol": "a,,b" }), 400, "cut"],
  ["a subprotocol twice", having({ "Sec-WebSocket-Protocol": "a, a" }), 400, "cut"],
  ["a subprotocol with a zero", raw("Sec-WebSocket-Protocol: a\0b"), 400, "cut"],
  [
    "an extension",
    having({ "Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=8" }),
    101,
  ],
  ["an extension that is none", having({ "Sec-WebSocket-Extensions": ';;=,,"' }), 101],
  ["a header in two lines", raw("X-A: b\r\n c"), 400, "cut"],
  [
    "the upgrade in two lines",
    upgrade().replace("Connection: Upgrade", "Connection:\r\n Upgrade"),
    400,
    "cut",
  ],
  ["a zero in a header", raw("X-A: b\0c"), 400, "cut"],
  ["a zero in a header's name", raw("X\0A: b"), 400, "cut"],
  ["a carriage return in a header", raw("X-A: b\rX-B: c"), 400, "cut"],
  ["a line feed alone", raw("X-A: b\nX-B: c"), 400, "cut"],
  ["line feeds alone", upgrade().replaceAll("\r\n", "\n"), 400, "cut"],
  ["a space before the colon", raw("X-A : b"), 400, "cut"],
  ["a space before the first header", upgrade().replace("Host:", " Host:"), 400, "cut"],
  ["no colon", raw("X-A"), 400, "cut"],
  ["no name", raw(": b"), 400, "cut"],
  ["bytes beyond ASCII in a header", raw("X-A: \xff\xfe"), 101],
  ["two thousand headers", raw(many(2_000).trimEnd()), 101],
  ["an origin behind two thousand headers", raw(`${many(2_000)}Origin: https://evil.example`), 403, "cut"],
  ["a second host behind two thousand headers", raw(`${many(2_000)}Host: evil.example`), 400, "cut"],
  ["twenty thousand headers", raw(many(20_000).trimEnd()), 431, "cut"],
  ["a header of 17,000 bytes", having({ "X-A": "x".repeat(17_000) }), 431, "cut"],
  ["a header's name of 17,000 bytes", having({ ["x".repeat(17_000)]: "" }), 431, "cut"],
  ["expecting something", having({ Expect: "100-continue" }), 101],
]

const SMUGGLED: Case[] = [
  ["two upgrades in a packet", upgrade() + upgrade(), 101],
  ["a request behind the upgrade", upgrade() + plain("/metrics"), 101],
  ["a length", `${having({ "Content-Length": "5" })}hello`, 400, "cut"],
  [
    "a length that hides a request",
    having({ "Content-Length": String(plain("/metrics").length) }) + plain("/metrics"),
    400,
    "cut",
  ],
  ["a length of nothing", having({ "Content-Length": "0" }), 101],
  ["two lengths", having({ "Content-Length": ["0", "5"] }), 400, "cut"],
  ["a list of lengths", having({ "Content-Length": "0, 5" }), 400, "cut"],
  ["a length with a sign", having({ "Content-Length": "+0" }), 400, "cut"],
  ["a length below zero", having({ "Content-Length": "-1" }), 400, "cut"],
  ["a length beyond any", having({ "Content-Length": "9".repeat(30) }), 400, "cut"],
  ["chunks", `${having({ "Transfer-Encoding": "chunked" })}5\r\nhello\r\n0\r\n\r\n`, 400, "cut"],
  [
    "chunks and a length",
    `${having({ "Transfer-Encoding": "chunked", "Content-Length": "5" })}0\r\n\r\n`,
    400,
    "cut",
  ],
  ["chunks by another name", having({ "Transfer-Encoding": "xchunked" }), 400, "cut"],
  ["chunks that are not", having({ "Transfer-Encoding": "identity" }), 400, "cut"],
  ["chunks, twice", having({ "Transfer-Encoding": ["identity", "chunked"] }), 400, "cut"],
  ["an upgrade behind an answer", plain("/nothing") + upgrade(), "cut"],
  ["an upgrade behind an answer that takes a while", plain("/metrics") + upgrade(), "cut"],
  ["an upgrade behind a page", plain("/") + upgrade(), "cut"],
  [
    "another upgrade behind an answer that takes a while",
    plain("/metrics") + having({ Upgrade: "h2c" }),
    "cut",
  ],
  [
    "an upgrade behind a refusal of Node's",
    plain("/", "Expect: the unexpected\r\n") + having({ Upgrade: "h2c" }),
    417,
    "cut",
  ],
  [
    "an upgrade behind a request without a host",
    `GET / HTTP/1.1\r\n\r\n${having({ Upgrade: "h2c" })}`,
    400,
    "cut",
  ],
  [
    "an upgrade in the body of a request",
    `${plain("/nothing", `Content-Length: ${upgrade().length}\r\n`)}${upgrade()}`,
    404,
  ],
  [
    "another upgrade, with a request behind it",
    having({ Upgrade: "h2c" }) + plain("/health/live"),
    426,
    "cut",
  ],
  [
    "another upgrade with a body",
    `${as("POST / HTTP/1.1", { Upgrade: "h2c", "Content-Length": "5" })}hello`,
    404,
    "cut",
  ],
]

/** The statuses in what came: of whole answers as the relay and Node write them. */
const statuses = (text: string) =>
  [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))

/** Waits for as many answers as expected, and for the end if that is. */
async function answersOf(client: RawClient, expected: readonly unknown[]): Promise<Array<number | "cut">> {
  const cut = expected.at(-1) === "cut"
  if (cut) await whenEnded(client)
  else await statusLine(client)
  return [...statuses(client.received().toString("latin1")), ...(client.ended() ? (["cut"] as const) : [])]
}

for (const [name, cases] of Object.entries({ LINES, TARGETS, HEADERS, SMUGGLED })) {
  t.test(`requests: ${name.toLowerCase()}`, async (t) => {
    const db = await database(t)
    const relay = await startRelay(t, db, NO_LIMITS)
    const witness = await startWitness(t, db, relay)
    await witness.through(name.toLowerCase(), async () => {
      for (const [what, bytes, ...answers] of cases) {
        const client = await openRaw(t, relay.url)
        client.send(bytes)
        t.strictSame(await answersOf(client, answers), answers, what)
        client.socket.destroy()
      }
    })
  })
}

t.test("a request a byte at a time is the same request", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, NO_LIMITS)
  const witness = await startWitness(t, db, relay)
  await witness.through("a request a byte at a time", async () => {
    for (const [bytes, status] of [
      [upgrade(GET, { Authorization: `Bearer ${token()}` }), 101],
      [having({ "Content-Length": "5" }), 400],
      [to("/x/../ws"), 400],
    ] as const) {
      const client = await openRaw(t, relay.url)
      await client.dribble(Buffer.from(bytes))
      t.match(await statusLine(client), `HTTP/1.1 ${status} `)
      client.socket.destroy()
    }
  })
})

t.test("what is refused is counted, and says what would not be", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, NO_LIMITS)
  const refusals = [
    [as("POST /ws HTTP/1.1"), "Allow: GET\r\n"],
    [having({ "Sec-WebSocket-Version": "8" }), "Sec-WebSocket-Version: 13\r\n"],
    [having({ "Sec-WebSocket-Key": "short" }), "HTTP/1.1 400 Bad Request\r\n"],
    [having({ "Sec-WebSocket-Protocol": "a, a" }), "HTTP/1.1 400 Bad Request\r\n"],
    [having({ "Content-Length": "5" }), "HTTP/1.1 400 Bad Request\r\n"],
  ] as const
  for (const [bytes, line] of refusals) {
    const client = await openRaw(t, relay.url)
    client.send(bytes)
    await whenEnded(client)
    t.match(client.received().toString(), line)
  }
  t.equal(await metricOf(relay, "relay_connects_total", 'result="bad_request"'), refusals.length)
})
