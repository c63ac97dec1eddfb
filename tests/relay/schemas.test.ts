/** Every frame of a relay is of the form that relay/protocol/server-message.ts describes, to the last field. */

import t from "tap"
import {
  ApplicationMessage,
  ChangeMessage,
  DerivedMessage,
  ServerMessage,
} from "../../relay/protocol/server-message.ts"
import type { Client, Received } from "../helpers/client.ts"
import { database } from "../helpers/database.ts"
import { asyncApiOf, frameCheck } from "../helpers/described.ts"
import { startRelay, token } from "../helpers/relay.ts"
import { until } from "../helpers/wait.ts"

function schemaOf(frame: Received) {
  if (!("tx" in frame)) return "data" in frame ? DerivedMessage : ServerMessage
  return frame.action === undefined ? ApplicationMessage : ChangeMessage
}

/** What is wrong with a frame; undefined: nothing. */
function fault(frame: Received): string | undefined {
  const result = schemaOf(frame).safeParse(frame)
  return result.success ? undefined : `${JSON.stringify(frame)}: ${result.error.message}`
}

const named = (frame: Received) => frame.action ?? frame.code ?? frame.type

t.test("every frame is of its documented form, and every form is seen", async (t) => {
  const db = await database(t)
  await db.query(`
    create table ballot (id int primary key, committee_id int, note text) partition by range (id);
    create table ballot_low partition of ballot for values from (0) to (100);
    select relay.track('ballot', type => 'ballot_update');
    select relay.define_derived('voting_update', 'election_results', '{vote}', 'election', action => 'results')`)
  const relay = await startRelay(t, db, { HEARTBEAT_SECONDS: "1" })
  const all = await relay.connect()
  const committee = await relay.connect({ sub: "8" }, "?channels=committee:7")
  const narrow = await relay.connect({ committees: [7] })
  const cursor = String(all.messages[0]?.cursor)
  await db.query(`
    insert into ballot values (1, 7, 'a'), (2, 8, 'ü"'), (3, null, null);
    update ballot set note = 'b' where id = 1;
    update ballot set id = 4 where id = 1;
    update ballot set committee_id = 8 where id = 4;
    update ballot set committee_id = 7 where id = 2;
    delete from ballot where id = 2;
    insert into vote (committee_id, votes) values (7, 1);
    truncate ballot_low;
    truncate ballot;
    begin; set local relay.bulk_load = 'summary'; insert into vote (votes) values (1), (2); commit;
    select relay.broadcast('election_updates', '{"text": "soon"}');
    select relay.broadcast('election_updates', 'null');
    select relay.send_to_user('8', '[1.50]')`)
  await all.first("a message", ({ type }) => type === "message")
  await committee.first("a message", ({ type }) => type === "message")
  const say = (client: Client, ...messages: object[]) => {
    for (const [request, message] of messages.entries()) client.send({ ...message, request })
  }
  say(
    all,
    { type: "ping" },
    { type: "subscribe", channels: ["committee:7"] },
    { type: "subscribe", channels: ["election_updates", "committee:7"], cursor },
    { type: "subscribe", channels: ["election_updates"], cursor: "another:1:1:" },
    { type: "unsubscribe", channels: ["committee:7"] },
    { type: "authenticate", token: token() },
    { type: "authenticate", token: token({ sub: "9" }) },
    { type: "unsubscribe", channels: ["committee:9"] },
    { type: "dance" },
    { type: "subscribe", channels: 1 },
  )
  say(narrow, { type: "subscribe", channels: ["committee:8"] })
  const early = await relay.open("/ws")
  early.send({ type: "ping" })
  const back = await relay.open(`/ws?cursor=${cursor}`, { headers: { authorization: `Bearer ${token()}` } })
  const strange = await relay.open("/ws?cursor=nonsense", { headers: { authorization: `Bearer ${token()}` } })
  const clients = [all, committee, narrow, early, back, strange]
  await all.first("the last answer", ({ code }) => code === "other_user")
  await until(
    "a heartbeat",
    () => all.messages.at(-1)?.type === "ping" || all.messages.at(-1)?.type === "checkpoint",
  )
  await back.first("a welcome", ({ type }) => type === "connection_success")
  await strange.first("a welcome", ({ type }) => type === "connection_success")
  const frames = () => clients.flatMap(({ messages }) => messages)
  const expected = [
    ...["create", "update", "delete", "leave", "truncate", "bulk_load", "message", "results"],
    ...["connection_success", "subscribed", "unsubscribed", "authenticated", "checkpoint", "ping", "pong"],
    ...[
      "bad_message",
      "unknown_type",
      "not_authenticated",
      "forbidden_channel",
      "not_subscribed",
      "other_user",
    ],
  ]
  const unseen = () => expected.filter((name) => !frames().some((frame) => named(frame) === name))
  await until("every form", () => unseen().length === 0).catch(() => {})
  t.same(unseen(), [])
  t.same(frames().map(fault).filter(Boolean), [])
  const described = frameCheck(await asyncApiOf(relay.url))
  t.same(frames().map(described).filter(Boolean), [], "and as it is described under /docs/")
  t.ok(frames().some((frame) => frame.previous_key !== undefined))
  t.ok(frames().some((frame) => frame.partition !== undefined))
})

t.test("a field that is not described is a fault", async (t) => {
  const change = {
    type: "vote",
    action: "leave",
    id: "1",
    at: "2026-11-03T20:54:56.647706Z",
    table: "public.vote",
    key: { id: "1" },
    tx: { id: "1", last: true },
  }
  t.equal(fault(change), undefined)
  t.match(fault({ ...change, more: 1 }), /more/)
  t.match(fault({ ...change, tx: { id: "1", last: true, first: true } } as Received), /first/)
  t.match(fault({ type: "ping", more: 1 }), /more/)
  t.match(fault({ type: "pang" }), /pang/)
})
