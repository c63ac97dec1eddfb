/** An example of each message, as a client would meet it. The tests hold each against its schema. */

const at = "2026-11-03T20:54:56.647706Z"
const tx = { id: "774", last: true }
const row = { id: 2, election_id: 1, committee_id: 7, candidate_id: 2, votes: 42, status: "entered" }
const change = { type: "voting_update", id: "2", at, table: "public.vote", tx }
const channels = ["election_updates", "election:1", "committee:7"]
const cursor = "a890ba01670c:774:774:"

/** By the name of the message in the description. */
export const SAMPLES: Record<string, object> = {
  "client.ping": { type: "ping", request: 1 },
  "client.pong": { type: "pong" },
  "client.subscribe": {
    type: "subscribe",
    channels: ["committee:7"],
    where: { committee_id: 7, votes: { gte: 100, lt: 500 }, status: { in: ["entered", "verified"] } },
    types: ["voting_update"],
    actions: ["create", "update", "leave", "delete"],
    request: "first",
  },
  "client.unsubscribe": { type: "unsubscribe", channels: ["election_updates"] },
  "client.start": { type: "start", cursor },
  "client.authenticate": { type: "authenticate", token: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.x" },
  connection_success: {
    type: "connection_success",
    user: "7",
    connection: "0b6f7a52-8f2e-4a3c-9d55-6f8a1c3b2d10",
    channels: ["election_updates", "user:7"],
    cursor,
    recovered: false,
    replayed: 0,
    reason: "no_cursor",
    heartbeat_seconds: 25,
    expires_in: 3_599,
  },
  subscribed: {
    type: "subscribed",
    channels: ["committee:7"],
    cursor,
    recovered: true,
    replayed: 3,
    reason: null,
    request: "first",
  },
  unsubscribed: { type: "unsubscribed", channels: ["election_updates"], cursor },
  authenticated: { type: "authenticated", user: "7", channels: ["committee:7", "user:7"], expires_in: 3_599 },
  checkpoint: { type: "checkpoint", cursor: "a890ba01670c:780:780:" },
  ping: { type: "ping" },
  pong: { type: "pong", at, request: 1 },
  error: {
    type: "error",
    code: "forbidden_channel",
    message: "not allowed: committee:9",
    request: "second",
  },
  "change.create": { ...change, action: "create", key: { id: "2" }, data: row, channels },
  "change.update": {
    ...change,
    action: "update",
    key: { id: "2" },
    data: { ...row, status: "verified" },
    channels,
    changed: ["status"],
    before: { status: "entered" },
  },
  "change.delete": { ...change, action: "delete", key: { id: "2" }, data: row, channels },
  "change.leave": { ...change, action: "leave", key: { id: "2" } },
  "change.oversize": {
    ...change,
    action: "update",
    key: { id: "2" },
    data: null,
    oversize: true,
    channels,
  },
  "change.truncate": { ...change, action: "truncate", channels: ["election_updates"] },
  "change.bulk_load": {
    ...change,
    action: "bulk_load",
    operation: "insert",
    rows: 8_625,
    channels: ["election_updates"],
  },
  message: {
    type: "message",
    id: "9",
    at,
    channel: "election_updates",
    payload: { text: "The counting begins." },
    tx,
  },
  derived: {
    type: "dashboard_update",
    channel: "dashboard",
    at: "2026-11-03T21:04:11.307Z",
    data: { votes: 2_387_909 },
  },
}
