/** Clients that go away with their cursor, and what they are told when they come back with it. */

import type { Test } from "tap"
import { parseCursor } from "../../relay/change/cursor.ts"
import { type Client, type Received, unlessClosed } from "./client.ts"
import { execSql } from "./cluster.ts"
import { type TestRelay, token } from "./relay.ts"
import { until } from "./wait.ts"

/** The last cursor of a client, once it covers the changes that it has received. */
export async function keptCursor(client: Client): Promise<string> {
  const last = () => client.messages.findLastIndex(({ cursor }) => cursor !== undefined)
  const change = client.messages.indexOf(client.changes().at(-1) as Received)
  await until("a cursor after the last change", () => last() > change)
  return client.messages[last()]?.cursor as string
}

/** Connects with a cursor, again where it is told to. @returns also what connection_success says. */
export async function comeBack(
  relay: TestRelay,
  cursor: string,
): Promise<{ client: Client; told: Received }> {
  for (;;) {
    await until("ready", () => relay.relay.status().ready)
    const client = await relay.open(`/ws?cursor=${encodeURIComponent(cursor)}`, {
      headers: { authorization: `Bearer ${token()}` },
    })
    const success = client.first("connection_success", ({ type }) => type === "connection_success")
    const told = await unlessClosed(client, success)
    if (told !== undefined) return { client, told }
    const { code, reason } = await client.closed
    if (code >= 4_500) throw new Error(`closed with ${code} ${reason}`)
  }
}

/** Whoever stayed connected is told to load anew. */
export async function cutOff(t: Test, { socket, closed }: Client): Promise<void> {
  await until("the client is closed", () => socket.readyState === socket.CLOSED)
  t.equal((await closed).code, 4010, "changes may have been missed")
}

/** Whoever comes back with the cursor is told to load anew, and is live from there on. */
export async function refused(
  t: Test,
  relay: TestRelay,
  url: string,
  cursor: string,
  reason = "lineage",
): Promise<void> {
  const { client, told } = await comeBack(relay, cursor)
  t.match(told, { recovered: false, reason }, `${cursor} is refused`)
  const mark = nextMark()
  await execSql(url, `insert into vote (votes) values (${mark})`)
  // The position may lie before what was written just now.
  await client.first("what comes next", ({ data }) => data?.votes === mark)
  client.socket.close()
}

/** Whoever comes back with the cursor gets exactly these votes, then goes on live. */
export async function continued(
  t: Test,
  relay: TestRelay,
  url: string,
  cursor: string,
  missed: number[],
): Promise<void> {
  const { client, told } = await comeBack(relay, cursor)
  t.match(told, { recovered: true, cursor }, `${cursor} is continued`)
  // What the feed has not read yet when the replay ends comes live.
  await client.first(
    "the end of the replay",
    ({ type, replayed }) => type === "checkpoint" && typeof replayed === "number",
  )
  t.same(votesOf(await client.count(missed.length)), missed, "everything that was missed, once")
  const mark = nextMark()
  await execSql(url, `insert into vote (votes) values (${mark})`)
  t.same(votesOf(await client.count(missed.length + 1)), [...missed, mark], "then live")
  client.socket.close()
}

/** Writes transactions until none that the cursor speaks of is ahead: only then can a wrong answer lose anything. */
export async function writePast(url: string, cursor: string): Promise<void> {
  const beyond = (parseCursor(cursor)?.snapshot.xmax ?? 0n) + 3n
  const passed = async () => {
    const [row] = await execSql<{ xid: string }>(
      url,
      `insert into vote (votes) values (${nextMark()})`,
      "select pg_snapshot_xmax(pg_current_snapshot())::text as xid",
    )
    return BigInt(row?.xid ?? 0) > beyond
  }
  await until("the transaction ids have passed the cursor", passed)
}

let marks = 1_000
/** Votes that no other row has. */
const nextMark = (): number => ++marks

export const votesOf = (changes: Received[]): unknown[] => changes.map(({ data }) => data?.votes)
