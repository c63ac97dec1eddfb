/** The changelog as SQL tests want to see it, and the versions they run on. */

import pg from "pg"
import type { Test } from "tap"
import { type Change, type LogRow, Op, readChange, seqOf } from "../../relay/change/change.ts"
import { TransactionOrder } from "../../relay/change/order.ts"
import type { Database } from "./database.ts"
import { hasVersion } from "./servers.ts"
import { until } from "./wait.ts"

export type Json = Record<string, unknown>

/** What a reader finds of a row of the log, its JSON read. */
export interface Entry {
  /** Of the row by which it came; what stands in another order keeps it. */
  seq: bigint
  xid: bigint
  table: string | null
  op: string
  type: string
  oversize: boolean
  old: Json | null
  new: Json | null
  oldText: string | null
  newText: string | null
  meta: Json
}

export const VERSIONS = ["18", "15"] as const

/** The reason to skip a version, or false. */
export const missing = (version: (typeof VERSIONS)[number]): string | false =>
  hasVersion(version) ? false : `no PostgreSQL ${version} on this machine`

const json = (text: string | null): Json | null => (text === null ? null : JSON.parse(text))

/** As the capture wrote it, in the order in which it was written. */
export interface WrittenRow extends Omit<LogRow, "op"> {
  op: string
  what: number
}

const isChange = (row: WrittenRow): row is WrittenRow & LogRow => Op.safeParse(row.op).success

/** Every row of the log as it was written: what a reader makes of them is in `readLog`. */
export function readWritten(db: Pick<Database, "query">): Promise<WrittenRow[]> {
  return db.query<WrittenRow & pg.QueryResultRow>(`
    select c.seq::text, c.xid::text, c.at::text, w."table", w.type, w.op, w.oversize, w.meta, c.what, c.data
    from (select * from relay.change_0 union all select * from relay.change_1 union all select * from relay.change_2) c
    join relay.what w on w.id = c.what order by c.seq`)
}

/** All row data in the log, also what no reader is sent. */
export const writtenText = async (db: Pick<Database, "query">): Promise<string> =>
  (await readWritten(db)).map(({ data }) => data).join("\n")

/**
 * Everything in the log as a relay reads it: without updates that changed nothing, instants in UTC, a transaction's changes
 * in the order in which they were made.
 */
export async function readLog(db: Pick<Database, "query">): Promise<Entry[]> {
  const rows = await readWritten(db)
  const changes = rows.filter(isChange).map(readChange)
  const entries = new TransactionOrder().page(changes, true).map(entryOf)
  for (const { seq, xid, table, type, op, data } of rows.filter((row) => !isChange(row))) {
    const at = entries.findIndex((entry) => entry.seq > BigInt(seq))
    entries.splice(at === -1 ? entries.length : at, 0, {
      ...NOTHING,
      ...{ seq: BigInt(seq), xid: BigInt(xid), table, type, op },
      newText: data,
      meta: op === "revocation" ? (json(data) ?? {}) : {},
    })
  }
  return entries
}

const NOTHING = { oversize: false, old: null, new: null, oldText: null, newText: null }

function entryOf(change: Change): Entry {
  const base = { ...NOTHING, seq: seqOf(change), xid: BigInt(change.xid), op: change.op }
  if (change.kind === "message") {
    const { channel, payload } = change
    return { ...base, table: null, type: "message", new: json(payload), newText: payload, meta: { channel } }
  }
  const { table, type } = change
  const { restricted, ...rest } = change.meta
  const meta = restricted.length === 0 ? rest : { ...rest, restricted }
  if (change.kind === "table") return { ...base, table, type, meta }
  const [oldText, newText] = [change.before?.text ?? null, change.after?.text ?? null]
  const { oversize } = change
  return { ...base, table, type, oversize, old: json(oldText), new: json(newText), oldText, newText, meta }
}

/** A statement for each table of the log. */
export const onLogTables = (statement: (table: string) => string): string =>
  [0, 1, 2].map((slot) => statement(`relay.change_${slot}`)).join("; ")

/** The log as short words: `insert`, `update`... */
export const readOps = async (db: Pick<Database, "query">): Promise<string[]> =>
  (await readLog(db)).map((entry) => entry.op)

/** The last entry. @throws if the log is empty. */
export async function lastEntry(db: Pick<Database, "query">): Promise<Entry> {
  const entry = (await readLog(db)).at(-1)
  if (entry === undefined) throw new Error("the log is empty")
  return entry
}

/** relay.cursor(), in a snapshot of its own. */
export const cursorNow = async (db: Pick<Database, "query">): Promise<string> =>
  (await db.query<{ it: string }>("select relay.cursor() as it"))[0]?.it ?? ""

/** One rotation as a relay makes it. @returns the slot that writers fill from then on, or null. */
export async function rotate(db: Pick<Database, "query">): Promise<number | null> {
  const [row] = await db.query<{ slot: number | null }>("select relay.rotate('0 s', 0) as slot")
  const slot = row?.slot ?? null
  if (slot !== null) await db.query("select relay.advance_slot($1::smallint)", [slot])
  return slot
}

/** What PostgreSQL says against a statement: its SQLSTATE and message; undefined if it has nothing against it. */
export async function refusal(
  work: Promise<unknown>,
): Promise<{ code: string; message: string; hint: string | undefined } | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    const { code = "", message, hint } = error as Error & { code?: string; hint?: string }
    return { code, message, hint }
  }
}

/** COPY ... FROM STDIN with these lines. */
export function copyIn(client: pg.Client, sql: string, lines: string): Promise<void> {
  const query = new pg.Query(sql) as pg.Query & {
    handleCopyInResponse(connection: { sendCopyFromChunk(chunk: Buffer): void; endCopyFrom(): void }): void
  }
  query.handleCopyInResponse = (connection) => {
    connection.sendCopyFromChunk(Buffer.from(lines))
    connection.endCopyFrom()
  }
  return new Promise((resolve, reject) => {
    query.on("end", () => resolve())
    query.on("error", reject)
    client.query(query)
  })
}

/** The process id of a session's server process. */
export async function backendOf(client: pg.Client): Promise<number> {
  const result = await client.query<{ pid: number }>("select pg_backend_pid() as pid")
  return result.rows[0]?.pid as number
}

/** Waits until that server process waits for a lock. */
export const waitsForLock = (db: Pick<Database, "query">, pid: number): Promise<void> =>
  until(`backend ${pid} waits for a lock`, async () => {
    const rows = await db.query(
      "select 1 from pg_stat_activity where pid = $1 and wait_event_type = 'Lock'",
      [pid],
    )
    return rows.length === 1
  })

/** An ordinary role without any right, dropped with the test. @returns the database's url as that role. */
export async function role(t: Test, db: Database, name: string): Promise<string> {
  const full = `${name}_${db.name}`
  const superuser = await db.session(db.superuserUrl)
  await superuser.query(`create role ${full} login password 'tests'`)
  t.teardown(async () => {
    const session = await db.session(db.superuserUrl)
    await session.query(`drop owned by ${full} cascade; drop role ${full}`)
  })
  return db.url.replace("//app:", `//${full}:`)
}
