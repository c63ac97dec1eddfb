/** A session that reads the changelog: what became visible since a position, in order. */

import { Socket } from "node:net"
import pg from "pg"
import { z } from "zod"
import { type Change, type LogRow, readChange } from "../change/change.ts"
import { parseSnapshot, type Snapshot } from "../change/cursor.ts"
import { Revocation } from "../change/revocation.ts"
import { TimeSlice } from "../lib/time-slice.ts"
import { LINEAGES, LONG_READ, READ, REVOCATIONS, SESSION } from "./queries.ts"

/** What one read shows beside the changes. */
export interface Head {
  readonly snapshot: Snapshot
  readonly horizon: Snapshot
  /** How much longer some relay has promised to poll, in milliseconds: 0 if that is over or void, null if none has. */
  readonly leaseMs: number | null
  /** The newest `seq` that was given out; its transaction may still be open. */
  readonly newest: bigint
}

/** Rows of the log, by what they are. */
export interface Entries {
  readonly changes: Change[]
  readonly revocations: Revocation[]
  /** Written by relays that wait for them to come back. */
  readonly canaries: string[]
}

export interface Page extends Entries {
  readonly head: Head
  /** Whether there is more than the limit: read it again with `pages`. */
  readonly cut: boolean
}

/** A page of a long read. The head is the same in each, and its horizon holds until the last. */
export interface LogPage extends Entries {
  readonly head: Head
  readonly final: boolean
}

/** What is left of a read that was cut: the changes of the same difference after a `seq`. */
export interface Rest {
  readonly until: Snapshot
  readonly after: string
}

/** One reading connection. Any failure makes it useless: close it and open another. */
export interface Session {
  readonly lineage: string
  /** The lineages whose cursors hold, the present one among them. */
  readonly lineages: ReadonlySet<string>
  /** What became visible since the snapshot, in order; at most `limit` changes. */
  read(since: Snapshot, limit: number): Promise<Page>
  /** The same without a limit, in pages of one snapshot. @param rest goes on where such a read was cut. */
  pages(since: Snapshot, size: number, rest?: Rest): AsyncGenerator<LogPage>
  /** The snapshot of this moment. */
  now(): Promise<Snapshot>
  /** The revocations that are in force now. */
  revocations(): Promise<Revocation[]>
  /** Promises to poll for so long, and notifies the other relays if no lease was in force. */
  lease(durationMs: number): Promise<void>
  /** Takes away a lease that is over, for good. @returns false if one is in force. */
  endLease(): Promise<boolean>
  /** An xid that every transaction which began before this call is below. */
  fence(): Promise<bigint>
  close(): void
}

const HeadRow = z
  .object({
    table: z.string().nullable(),
    op: z.string(),
    type: z.string(),
    old: z.string().transform(Number).nullable(),
    new: z.string().transform(BigInt).nullable(),
  })
  .transform((row) => ({
    log: row.table,
    horizon: row.op,
    snapshot: row.type,
    aheadMs: row.old,
    newest: row.new ?? 0n,
  }))

/** A lease further ahead was set by a clock that has stepped since. */
const LEASE_MAX_MS = 5_000
/** How long a query on the log may take. Milliseconds. */
export const QUERY_TIMEOUT_MS = 10_000
/** The first row of a long read comes when all are sorted. */
const LONG_QUERY_TIMEOUT_MS = 120_000

/** One row, in the order of COLUMNS. */
type Values = Array<string | null>

/** The type of what relay.canary writes. */
const CANARY = "canary"

const asText = { getTypeParser: () => (value: string) => value }

/** The connection of a session; it is not connected yet. */
function createConnection(connectionString: string) {
  const socket = new Socket()
  const client = new pg.Client({
    connectionString,
    application_name: "commitcast feed",
    stream: () => socket,
    keepAlive: true,
    query_timeout: QUERY_TIMEOUT_MS,
    connectionTimeoutMillis: QUERY_TIMEOUT_MS,
    types: asText as pg.CustomTypesConfig,
  })
  // A running query rejects by itself. If none is running, the next one rejects.
  client.on("error", () => {})
  return {
    client,
    /** Rows of the log. pg returns them as arrays: making its objects took more time than everything else. */
    async rowsOf(query: Omit<pg.QueryArrayConfig, "rowMode"> & { query_timeout?: number }) {
      const { rows } = await client.query<Values>({ ...query, rowMode: "array" })
      return rows.map(([seq, xid, at, table, op, type, old, after, meta]) => {
        return { seq, xid, at, table, op, type, old, new: after, meta }
      })
    },
    /** The one value that a statement returns. */
    async one(text: string, values: unknown[] = []): Promise<string> {
      const result = await client.query<[string]>({ text, values, rowMode: "array" })
      return result.rows[0]?.[0] as string
    },
    close() {
      client.end().catch(() => {})
      socket.destroySoon()
    },
  }
}

/** @throws as Changelog.open. */
export async function openSession(connectionString: string): Promise<Session> {
  const { client, rowsOf, one, close } = createConnection(connectionString)
  try {
    await client.connect()
    await client.query(SESSION)
    const lineage = await one("select relay.meet_lineage()")
    const lineages = new Set((await client.query<{ id: string }>(LINEAGES)).rows.map(({ id }) => id))
    return {
      lineage,
      lineages,
      async read(since, limit) {
        const [head, ...rows] = await rowsOf({
          name: "commitcast_read",
          text: `${READ} limit $2::int + 2`,
          values: [since.text, limit],
        })
        const cut = rows.length > limit
        if (cut) rows.pop()
        return { head: readHead(head, lineage), ...(await readRows(rows)), cut }
      },
      async *pages(since, size, rest) {
        // Lock first: otherwise a rotation could empty a partition after the snapshot was taken.
        await client.query("begin; lock table relay.change in access share mode")
        try {
          await client.query({
            text: `declare commitcast_pages no scroll cursor for ${LONG_READ}`,
            values: [since.text, rest?.until.text ?? null, rest?.after ?? "0"],
          })
          const next = (rows: number) =>
            rowsOf({ text: `fetch ${rows} from commitcast_pages`, query_timeout: LONG_QUERY_TIMEOUT_MS })
          const head = readHead((await next(1))[0], lineage)
          let rows = await next(size)
          for (;;) {
            const following = rows.length < size ? [] : await next(size)
            yield { head, ...(await readRows(rows)), final: following.length === 0 }
            if (following.length === 0) return
            rows = following
          }
        } finally {
          await client.query("rollback")
        }
      },
      now: async () => readSnapshot(await one("select pg_current_snapshot()::text")),
      async revocations() {
        const { rows } = await client.query<[string]>({ text: REVOCATIONS, rowMode: "array" })
        return rows.map(([text]) => Revocation.parse(JSON.parse(text)))
      },
      async lease(durationMs) {
        await one("select relay.set_lease($1::int)", [durationMs])
      },
      endLease: async () => (await one("select relay.end_lease()::text")) === "true",
      fence: async () => BigInt(await one("select pg_current_xact_id()::text")),
      close,
    }
  } catch (error) {
    close()
    throw error
  }
}

type LogText = Record<keyof LogRow, string | null | undefined>

/** Rows of the log by what they are. */
async function readRows(rows: readonly LogText[]): Promise<Entries> {
  const isRevocation = ({ op }: LogText) => op === "revocation"
  const isCanary = ({ op, type }: LogText) => op === "message" && type === CANARY
  return {
    changes: await readChanges(rows.filter((row) => !isRevocation(row) && !isCanary(row))),
    revocations: rows.filter(isRevocation).map(({ meta }) => Revocation.parse(JSON.parse(meta ?? ""))),
    canaries: rows.filter(isCanary).map((row) => z.string().parse(JSON.parse(row.new ?? ""))),
  }
}

/** Reads changes among the rows of the log, in slices. @throws as readChange. */
export async function readChanges(rows: readonly unknown[]): Promise<Change[]> {
  const slice = new TimeSlice()
  const changes: Change[] = []
  for (const row of rows) {
    changes.push(readChange(row))
    if (slice.over) await slice.turn()
  }
  return changes
}

function readHead(row: unknown, lineage: string): Head {
  const { log, snapshot, horizon, aheadMs, newest } = HeadRow.parse(row)
  // The log was made anew or restored while this session was open, which finds its tables by name. Or it is being
  // restored in parts right now.
  if (log !== lineage) throw new Error("the changelog is another one than at the start of the session")
  return {
    snapshot: readSnapshot(snapshot),
    horizon: readSnapshot(horizon),
    leaseMs: leaseLeft(aheadMs),
    newest,
  }
}

function leaseLeft(aheadMs: number | null): number | null {
  if (aheadMs === null) return null
  return aheadMs > LEASE_MAX_MS ? 0 : Math.max(0, aheadMs)
}

function readSnapshot(text: string): Snapshot {
  const snapshot = parseSnapshot(text)
  if (snapshot === undefined) throw new Error("PostgreSQL answered something that is not a snapshot")
  return snapshot
}
