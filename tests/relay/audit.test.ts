/** The audit log: a line for whoever comes, joins, is refused and leaves, through real sockets into a real file. */

import { existsSync, readFileSync, renameSync, symlinkSync, unlinkSync } from "node:fs"
import { join } from "node:path"
import t, { type Test } from "tap"
import { AuditLine } from "../../relay/gateway/audit-line.ts"
import { workDirectory } from "../helpers/command.ts"
import { database } from "../helpers/database.ts"
import { metricOf, startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

/** The lines of a file, each held against the schema. */
const linesIn = (path: string): AuditLine[] =>
  (existsSync(path) ? readFileSync(path, "utf8") : "")
    .split("\n")
    .slice(0, -1)
    .map((line) => AuditLine.parse(JSON.parse(line)))

async function audited(t: Test, settings: Record<string, string> = {}) {
  const db = await database(t)
  const path = join(await workDirectory(t), "audit.log")
  const relay = await startRelay(t, db, { AUDIT_LOG: path, ...settings })
  const told = () => linesIn(path)
  return {
    ...relay,
    path,
    told,
    /** The next line of an event, without its time. */
    async line<Event extends AuditLine["event"]>(event: Event, number = 1) {
      const found = () => told().filter((line) => line.event === event)
      await until(`${number} of ${event}`, () => found().length >= number)
      const { time, ...rest } = found()[number - 1] as Extract<AuditLine, { event: Event }>
      t.ok(Date.parse(time) <= Date.now() && Date.parse(time) > Date.now() - 60_000)
      return rest
    },
  }
}

const bearer = (claims: Record<string, unknown> = {}) => ({
  headers: { authorization: `Bearer ${token(claims)}` },
})

t.test("what somebody does from coming to leaving", async (t) => {
  const began = performance.now()
  const relay = await audited(t)
  const client = await relay.connect(
    { committees: [7, 8] },
    '?channels=committee:7&where={"votes":{"gte":4711}}&actions=create',
  )
  const { connection } = await relay.line("connected")
  const who = { connection, user: "7", address: "127.0.0.1" }
  t.strictSame(await relay.line("connected"), {
    event: "connected",
    ...who,
    channels: ["committee:7"],
    where: ["votes gte"],
    actions: ["create"],
    expires_at: (await relay.line("connected")).expires_at,
  })
  t.equal(client.messages[0]?.connection, connection)
  client.send({
    type: "subscribe",
    channels: ["committee:8"],
    where: { voter_name: "Secret", votes: { in: [4711] } },
  })
  t.strictSame(await relay.line("subscribed"), {
    event: "subscribed",
    ...who,
    channels: ["committee:8"],
    where: ["voter_name among", "votes among"],
    actions: ["create"],
  })
  client.send({ type: "subscribe", channels: ["committee:9", "user:1"] })
  t.strictSame(await relay.line("channels_refused"), {
    event: "channels_refused",
    ...who,
    channels: ["committee:9", "user:1"],
  })
  client.send({ type: "authenticate", token: token({ committees: [7] }, { expiresIn: "2h" }) })
  const renewed = await relay.line("renewed")
  t.match(renewed, { ...who, channels: ["committee:7"] }, "what is left")
  t.ok(Date.parse(renewed.expires_at) > Date.now() + 3_700_000)
  client.send({ type: "authenticate", token: token({ sub: "8" }) })
  t.strictSame(await relay.line("token_refused"), { event: "token_refused", ...who, reason: "other_user" })
  client.send({ type: "unsubscribe", channels: ["committee:7"] })
  t.strictSame(await relay.line("unsubscribed"), {
    event: "unsubscribed",
    ...who,
    channels: ["committee:7"],
  })
  client.socket.close(4321, "had enough")
  const { seconds, ...closed } = await relay.line("closed")
  t.strictSame(closed, { event: "closed", ...who, code: 4321, reason: "had enough", by: "client" })
  t.ok(seconds > 0 && seconds * 1_000 <= performance.now() - began)
  t.notMatch(readFileSync(relay.path, "utf8"), /4711|Secret|eyJ/, "no values, no tokens")
})

t.test("upgrades that are refused, and for whom", async (t) => {
  const relay = await audited(t, { TRUST_PROXY: "1", MAX_CONNECTIONS_PER_ADDRESS: "1", MAX_CONNECTIONS: "2" })
  const from = (address: string, headers: Record<string, string> = {}) => ({
    headers: { ...headers, "x-forwarded-for": address, authorization: `Bearer ${token()}` },
  })
  await relay.open("/ws", from("192.0.2.1"))
  await relay.open("/ws", from("192.0.2.2"))
  const cases: [path: string, options: ReturnType<typeof from>, reason: string, status: number][] = [
    ["/nowhere", from("192.0.2.3"), "wrong_path", 404],
    ["/ws", from("192.0.2.4", { origin: "https://evil.example" }), "origin", 403],
    ["/ws?channels=A:B:C", from("192.0.2.1"), "connections_per_address", 429],
    ["/ws", from("2001:db8::1"), "connections", 503],
    ["//ws", from("192.0.2.5"), "bad_request", 400],
  ]
  for (const [path, options] of cases) await t.rejects(relay.open(path, options))
  await relay.line("refused", cases.length)
  t.strictSame(
    relay
      .told()
      .flatMap((line) => (line.event === "refused" ? [[line.address, line.reason, line.status]] : [])),
    cases.map(([, { headers }, reason, status]) => [
      headers["x-forwarded-for"].replace("2001:db8::1", "2001:db8:0:0::/64"),
      reason,
      status,
    ]),
  )
})

t.test("tokens and channels that are refused at the door", async (t) => {
  const relay = await audited(t)
  for (const [options, reason, code] of [
    [{ headers: { authorization: "Bearer e30.e30.x" } }, "invalid", 4500],
    [bearer({ exp: 1 }), "expired", 4005],
  ] as const) {
    const client = await relay.open("/ws", options)
    t.equal((await client.closed).code, code)
    const number = code === 4500 ? 1 : 2
    t.match(await relay.line("token_refused", number), { reason, address: "127.0.0.1", user: undefined })
    t.match(await relay.line("closed", number), { code, by: "relay", user: undefined })
  }
  const client = await relay.open("/ws?channels=committee:8", bearer({ committees: [7] }))
  await client.closed
  t.match(await relay.line("channels_refused"), { channels: ["committee:8"], user: "7" })
  t.match(await relay.line("closed", 3), {
    code: 4507,
    reason: "channel not allowed: committee:8",
    by: "relay",
  })
})

t.test("tokens and channels that are tried by plain requests", async (t) => {
  const relay = await audited(t)
  const ask = async (path: string, { headers }: ReturnType<typeof bearer>) =>
    (await fetch(relay.url + path, { headers })).status
  t.equal(await ask("/ws", { headers: { authorization: "Bearer e30.e30.x" } }), 401)
  t.match(await relay.line("token_refused"), {
    reason: "invalid",
    address: "127.0.0.1",
    connection: undefined,
  })
  t.equal(await ask("/ws?channels=committee:8", bearer({ committees: [7] })), 403)
  t.match(await relay.line("channels_refused"), { channels: ["committee:8"], user: "7" })
  t.equal(relay.told().length, 2)
})

t.test("who is sent away, and who is lost", async (t) => {
  const relay = await audited(t, {
    MAX_CONNECTIONS_PER_USER: "1",
    USER_LIMIT: "evict",
    AUTH_TIMEOUT_SECONDS: "0.5",
    MAX_FRAME_RATE: "2",
  })
  const closed = () => relay.told().filter((line) => line.event === "closed")
  const ends = async (what: string, act: () => Promise<unknown>, line: object) => {
    const before = closed().length
    await act()
    await until(what, () => closed().length > before)
    t.match(closed()[before], line, what)
  }
  await relay.connect()
  await ends("evicted", () => relay.connect(), {
    code: 4504,
    reason: /a newer one took the place/,
    user: "7",
  })
  await ends("nobody", () => relay.open("/ws"), { code: 4502, by: "relay", user: undefined })
  await ends(
    "too fast",
    async () => {
      const client = await relay.connect({ sub: "8" })
      for (let n = 0; n < 20; n++) client.send({ type: "ping" })
    },
    { code: 4013, by: "relay", user: "8" },
  )
  await ends("lost", async () => (await relay.connect({ sub: "9" })).socket.terminate(), {
    code: 1006,
    by: "nobody",
    user: "9",
  })
  await ends("broken", async () => (await relay.connect({ sub: "10" })).socket.send("x".repeat(20_000)), {
    code: 1006,
    by: "relay",
    reason: "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH",
  })
  await relay.connect({ sub: "11" })
  await relay.stop()
  t.match(closed().at(-1), { code: 4000, by: "relay" }, "the last lines are written")
})

t.test("nothing that a client says breaks a line, makes it long, or brings a token in", async (t) => {
  const relay = await audited(t)
  const short = token({}, { noTimestamp: true }).replace(/\.[^.]*$/, ".x")
  const client = await relay.connect({ sub: `\n\u2028\u0085\u001b[31m${"😀".repeat(60)}` })
  const channels = Array.from({ length: 60 }, (_, n) => `c:\u202e${"ü".repeat(100)}${n}`)
  client.send({
    type: "subscribe",
    channels,
    where: { [`a\n\u2029${"ç".repeat(60)}`]: 1 },
    types: ["\u0000"],
  })
  const { channels: told } = await relay.line("subscribed")
  t.match(told.at(-1), /^and \d+ more$/)
  client.send({ type: "subscribe", channels: [`t:${short.slice(0, 128)}`] })
  t.strictSame((await relay.line("subscribed", 2)).channels, ["t:[token]"])
  client.socket.close(4000, `"}\r\n\u2028 ${short.slice(0, 100)}`)
  t.equal((await relay.line("closed")).reason, '"}\r\n\u2028 [token]')
  const text = readFileSync(relay.path, "latin1")
  t.match(text, /^[\n\x20-\x7e]+$/, "ASCII, and no control characters")
  t.equal(text.split("\n").length - 1, 4)
  for (const line of text.split("\n")) t.ok(line.length < 4_096, `${line.length}`)
  t.notOk(text.includes(short.split(".")[1] as string))
})

t.test("a flood of refusals is counted rather than written, but for who comes in with a token", async (t) => {
  const relay = await audited(t)
  const many = 60
  await Promise.all(Array.from({ length: many }, () => t.rejects(relay.open("/nowhere"))))
  for (let n = 0; n < 20; n++) (await relay.connect()).socket.terminate()
  const client = await relay.connect()
  for (let n = 0; n < 60; n++) client.send({ type: "subscribe", channels: [`c:${n}`], request: n })
  await client.first("the last answer", ({ request }) => request === 59)
  await relay.stop()
  const events = (event: string) => relay.told().filter((line) => line.event === event).length
  const summed = (of: string, reason?: string) =>
    relay
      .told()
      .flatMap((line) =>
        line.event === "summed" && line.of === of && line.reason === reason ? [line.times] : [],
      )
      .reduce((all, times) => all + times, 0)
  t.equal(events("refused") + summed("refused", "wrong_path"), many, "none is left out")
  t.ok(events("refused") < many / 2)
  t.equal(events("subscribed") + summed("subscribed"), 60)
  t.ok(events("subscribed") < 60)
  t.equal(events("connected"), 21)
  t.equal(events("closed"), 21)
  t.equal(await metricOf(relay, "relay_audit_lines_total", 'result="told"'), relay.told().length)
  t.equal(
    await metricOf(relay, "relay_audit_lines_total", 'result="summed"'),
    summed("refused", "wrong_path") + summed("subscribed"),
  )
})

t.test("a file that is moved away is begun anew", async (t) => {
  const relay = await audited(t)
  await relay.connect({ sub: "1" })
  await relay.line("connected")
  renameSync(relay.path, `${relay.path}.1`)
  await until("there is a new one", () => existsSync(relay.path))
  await relay.connect({ sub: "2" })
  t.match(await relay.line("connected"), { user: "2" })
  t.match(linesIn(`${relay.path}.1`), [{ event: "connected", user: "1" }])
})

t.test("a disk that is full and a path that is gone are counted and told, and stop nobody", async (t) => {
  const path = join(await workDirectory(t), "audit.log")
  symlinkSync("/dev/full", path)
  const relay = await audited(t, { AUDIT_LOG: path })
  const failed = async () => {
    const text = await relay.relay.metrics.registry.metrics()
    return !text.includes("\nrelay_audit_failures_total 0\n")
  }
  t.notOk(await failed())
  const client = await relay.connect()
  await until("it is counted", failed)
  t.match(
    relay.lines.find(({ event }) => event === "audit_failed"),
    { level: 50, error: /ENOSPC/ },
  )
  client.send({ type: "ping" })
  await client.first("an answer", ({ type }) => type === "pong")
  unlinkSync(path)
  await until("there is a file again", () => existsSync(path))
  await relay.connect({ sub: "8" })
  await until("it is written", () => linesIn(path).some((line) => "user" in line && line.user === "8"))
})
