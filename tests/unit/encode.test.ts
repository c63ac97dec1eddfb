/** The wire: what is taken from clients, and changes as frames. */

import assert from "node:assert/strict"
import fc from "fast-check"
import t from "tap"
import type { RowChange } from "../../relay/change/change.ts"
import { NO_MASK } from "../../relay/change/column-mask.ts"
import { ChannelName, ClientMessage } from "../../relay/protocol/client-message.ts"
import { CloseCode } from "../../relay/protocol/close-code.ts"
import { encodeChange, encodeMessage } from "../../relay/protocol/encode.ts"
import { OversizeMessage } from "../../relay/protocol/server-message.ts"
import { readChange } from "../helpers/change.ts"

const accepts = (message: unknown) => ClientMessage.safeParse(message).success

t.test("a client may say these things", async (t) => {
  for (const message of [
    { type: "ping" },
    { type: "ping", request: 1 },
    { type: "ping", request: "x".repeat(64) },
    { type: "pong" },
    { type: "subscribe", channels: ["election_updates"] },
    { type: "subscribe", channels: ["committee:1", "user:auth0|7", "hall:ü"], request: 0 },
    { type: "subscribe", channels: Array(1_000).fill("a:1"), cursor: "a:1:1:" },
    { type: "unsubscribe", channels: ["committee:1"] },
    { type: "authenticate", token: "" },
    { type: "authenticate", token: "x".repeat(8_192), more: "is ignored" },
  ])
    t.ok(accepts(message), JSON.stringify(message).slice(0, 80))
  t.notOk("more" in ClientMessage.parse({ type: "ping", more: 1 }), "what is not known is left out")
})

t.test("a client may not say these", async (t) => {
  for (const message of [
    null,
    undefined,
    "ping",
    [],
    {},
    { type: null },
    { type: "Ping" },
    { type: "publish" },
    { type: "ping", request: null },
    { type: "ping", request: {} },
    { type: "ping", request: "x".repeat(65) },
    { type: "ping", request: Number.NaN },
    { type: "subscribe" },
    { type: "subscribe", channels: [] },
    { type: "subscribe", channels: "committee:1" },
    { type: "subscribe", channels: { 0: "committee:1" } },
    { type: "subscribe", channels: [1] },
    { type: "subscribe", channels: Array(1_001).fill("a:1") },
    { type: "subscribe", channels: ["a:1"], cursor: 1 },
    { type: "unsubscribe", channels: ["A"] },
    { type: "authenticate" },
    { type: "authenticate", token: 1 },
    { type: "authenticate", token: "x".repeat(8_193) },
  ])
    t.notOk(accepts(message), JSON.stringify(message)?.slice(0, 80))
})

t.test("whatever JSON comes, the answer is yes or no", async (t) => {
  const type = fc.constantFrom(
    "ping",
    "pong",
    "subscribe",
    "unsubscribe",
    "authenticate",
    "__proto__",
    "toString",
  )
  const message = fc.oneof(
    fc.jsonValue(),
    fc.record(
      {
        type,
        channels: fc.jsonValue(),
        token: fc.jsonValue(),
        request: fc.jsonValue(),
        cursor: fc.jsonValue(),
      },
      { requiredKeys: ["type"] },
    ),
  )
  t.doesNotThrow(() => fc.assert(fc.property(message, (value) => typeof accepts(value) === "boolean")))
})

t.test("a channel is a name, or a name and an id", async (t) => {
  const ok = (name: string) => ChannelName.safeParse(name).success
  for (const name of [
    "a",
    "election_updates",
    "committee:7",
    "a1_b:x",
    `${"a".repeat(63)}:${"x".repeat(128)}`,
    "user:a/b|c@d",
    "user:é",
    "user:𝄞",
  ])
    t.ok(ok(name), name)
  for (const name of [
    "",
    ":",
    "a:",
    ":1",
    "A",
    "1a",
    "_a",
    "a-b",
    "a:b:c",
    "a: b",
    "a b",
    "a:\n",
    "a\n",
    "a:\u00a0",
    "a".repeat(64),
    `a:${"x".repeat(129)}`,
    "*",
    "a:*:",
  ])
    t.notOk(ok(name), JSON.stringify(name))
})

t.test("close codes keep their promise on coming back", async (t) => {
  t.same(CloseCode, {
    drain: 4000,
    tokenExpired: 4005,
    slowConsumer: 4008,
    cannotContinue: 4010,
    tryAgain: 4011,
    noPong: 4012,
    tooManyRequests: 4013,
    invalidToken: 4500,
    badMessage: 4501,
    notAuthenticated: 4502,
    connectionLimit: 4504,
    tooManyChannels: 4505,
    forbidden: 4507,
    tooManyErrors: 4509,
  })
})

t.test("a request that was not given is not in the answer", async (t) => {
  t.equal(encodeMessage({ type: "pong", at: "now", request: undefined }), '{"type":"pong","at":"now"}')
  t.equal(encodeMessage({ type: "pong", at: "now", request: 0 }), '{"type":"pong","at":"now","request":0}')
})

const text = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.string({ unit: fc.constantFrom('"', "\\", "\n", "{", "}", "\u2028", "é") }),
)
const values = fc.record({
  id: fc.integer(),
  committee_id: fc.constantFrom(1, 2, null),
  name: fc.oneof(text, fc.constant(null)),
  doc: fc.jsonValue(),
})
const META = JSON.stringify({ key: ["id"], exact: ["id"], scope: { committee: "committee_id" } })

const rowChange = (
  op: "insert" | "update" | "delete",
  old: object | null,
  now: object | null,
  name = "public.t",
) =>
  readChange({
    seq: "9007199254740993",
    xid: "18446744073709551615",
    at: "2026-11-03 20:54:56.6+00",
    table: name,
    op,
    type: "t_update",
    old: old && JSON.stringify(old, null, 1),
    new: now && JSON.stringify(now),
    meta: META,
  }) as RowChange

const HEAD = {
  type: "t_update",
  id: "9007199254740993",
  at: "2026-11-03T20:54:56.6Z",
  tx: { id: "18446744073709551615", last: true },
}
const channelsOf = (row: { committee_id: number | null }) =>
  row.committee_id === null ? ["election_updates"] : ["election_updates", `committee:${row.committee_id}`]
// What JSON makes of it, such as 0 for -0.
const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T

t.test("a change is valid JSON with the fields of its kind, whatever the row holds", async (t) => {
  const property = fc.property(values, values, text, fc.boolean(), (before, after, name, last) => {
    const encode = (change: RowChange, view: "whole" | "enter" | "leave") =>
      JSON.parse(encodeChange(change, view, NO_MASK, last)) as unknown
    const head = { ...HEAD, table: name, tx: { ...HEAD.tx, last } }
    const [old, now] = [plain(before), plain(after)]
    const key = (row: { id: number }) => ({ id: String(row.id) })
    const create = { ...head, action: "create", key: key(now), data: now, channels: channelsOf(now) }
    assert.deepEqual(encode(rowChange("insert", null, after, name), "whole"), create)
    assert.deepEqual(encode(rowChange("delete", before, null, name), "whole"), {
      ...head,
      action: "delete",
      key: key(old),
      data: old,
      channels: channelsOf(old),
    })
    const update = rowChange("update", before, after, name)
    assert.deepEqual(encode(update, "enter"), create)
    assert.deepEqual(encode(update, "leave"), { ...head, action: "leave", key: key(old) })
    // The old text is indented, so a column with an object in it differs by its text alone.
    const changed = (Object.keys(now) as Array<keyof typeof now>).filter(
      (column) =>
        JSON.stringify(old[column], null, 1).replaceAll("\n", "\n ") !== JSON.stringify(now[column]),
    )
    assert.deepEqual(encode(update, "whole"), {
      ...create,
      action: "update",
      changed,
      before: Object.fromEntries(changed.map((column) => [column, old[column]])),
      ...(old.id === now.id ? {} : { previous_key: key(old) }),
    })
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }))
})

t.test("of a row that was too large for the log only the key and the channels go out", async (t) => {
  const change = (op: "insert" | "update" | "delete", old: object | null, now: object | null) => ({
    ...rowChange(op, old, now),
    oversize: true,
  })
  const [one, two] = [
    { id: 1, committee_id: 7 },
    { id: 2, committee_id: 8 },
  ]
  const encode = (change: RowChange, view: "whole" | "enter" | "leave") =>
    JSON.parse(encodeChange(change, view, NO_MASK, true)) as unknown
  const sent = (row: typeof one, action: string, more: object = {}) => ({
    ...HEAD,
    table: "public.t",
    action,
    key: { id: String(row.id) },
    data: null,
    oversize: true,
    ...more,
    channels: channelsOf(row),
  })
  t.strictSame(encode(change("insert", null, one), "whole"), sent(one, "create"))
  t.strictSame(encode(change("delete", one, null), "whole"), sent(one, "delete"))
  t.strictSame(encode(change("update", one, { ...one, committee_id: 8 }), "whole"), {
    ...sent({ ...one, committee_id: 8 }, "update"),
  })
  const moved = change("update", one, two)
  t.strictSame(encode(moved, "whole"), sent(two, "update", { previous_key: { id: "1" } }))
  t.strictSame(encode(moved, "enter"), sent(two, "create"), "whoever did not see it is told no former key")
  t.strictSame(encode(moved, "leave"), {
    ...HEAD,
    table: "public.t",
    action: "leave",
    key: { id: "1" },
  })
  for (const view of ["whole", "enter"] as const)
    t.ok(OversizeMessage.safeParse(encode(moved, view)).success, "as it is described")
  t.notOk(OversizeMessage.safeParse(encode(rowChange("insert", null, one), "whole")).success)
})

t.test("row text goes out as PostgreSQL wrote it", async (t) => {
  const now = '{"id":1, "n":1.50,  "big":12345678901234567890.10,"t":"\\u00e9"}'
  const change = readChange({
    seq: "1",
    xid: "1",
    at: "2026-01-01 00:00:00+00",
    table: "public.t",
    op: "insert",
    type: "t_update",
    old: null,
    new: now,
    meta: '{"key":["id"]}',
  })
  t.ok(encodeChange(change, "whole", NO_MASK, false).includes(`"data":${now},`))
})

t.test("one who may not see the row any more is told nothing of it", async (t) => {
  const change = rowChange(
    "update",
    { id: 1, name: "old secret" },
    { id: 2, name: "new secret", committee_id: 2 },
  )
  t.same(JSON.parse(encodeChange(change, "leave", NO_MASK, true)), {
    ...HEAD,
    table: "public.t",
    action: "leave",
    key: { id: "1" },
  })
  t.notMatch(encodeChange(change, "enter", NO_MASK, true), "old secret")
})

t.test("tables and messages have fields of their own", async (t) => {
  const base = { seq: "1", xid: "2", at: "2026-01-01 00:00:00+00", old: null, new: null }
  const facts = { table: 'public."odd ""name"', type: "t_update" }
  const encode = (fields: object) =>
    JSON.parse(encodeChange(readChange({ ...base, ...facts, ...fields }), "whole", NO_MASK, true)) as unknown
  const head = { id: "1", at: "2026-01-01T00:00:00Z", tx: { id: "2", last: true } }
  const table = { ...head, ...facts, channels: ["election_updates"] }
  t.same(encode({ op: "truncate", meta: META }), { ...table, action: "truncate" })
  t.same(encode({ op: "truncate", meta: '{"partition":"public.part"}' }), {
    ...table,
    action: "truncate",
    partition: "public.part",
  })
  t.same(encode({ op: "bulk_load", meta: '{"op":"insert","rows":50}' }), {
    ...table,
    action: "bulk_load",
    operation: "insert",
    rows: 50,
  })
  const payload = '{"a":[1.50,"\\n"],\n "b":null}'
  t.same(
    encode({ op: "message", type: "message", table: null, new: payload, meta: '{"channel":"hall:\\"x\\""}' }),
    {
      ...head,
      type: "message",
      channel: 'hall:"x"',
      payload: JSON.parse(payload),
    },
  )
})

t.test("a time goes out as RFC 3339", async (t) => {
  const base = { seq: "1", xid: "2", op: "message", type: "message", table: null, old: null, new: "1" }
  const at = (text: string): string =>
    JSON.parse(
      encodeChange(readChange({ ...base, at: text, meta: '{"channel":"c"}' }), "whole", NO_MASK, true),
    ).at
  t.equal(at("2026-11-03 20:54:56.647706+00"), "2026-11-03T20:54:56.647706Z")
  t.equal(at("2026-11-03 20:54:56+00"), "2026-11-03T20:54:56Z")
  t.ok(Number.isFinite(Date.parse(at("2026-11-03 20:54:56.6+00"))))
})
