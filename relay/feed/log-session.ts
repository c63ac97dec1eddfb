/** A session that reads the changelog: what became visible since a position, in order. */

import type { Snapshot } from "../change/cursor.ts"
import { TransactionOrder } from "../change/order.ts"
import { Revocation } from "../change/revocation.ts"
import type { Database } from "../lib/database.ts"
import {
  type Entries,
  type EntriesDeps,
  noEntries,
  type RawRow,
  type ReadRows,
  readEntries,
  type UnreadableRow,
} from "./entries.ts"
import { type Head, type Place, readHead, readSnapshot, samePlace } from "./head.ts"
import { type LogConnection, openLogConnection } from "./log-connection.ts"
import { inFlightOf, type NumberedPage, type Rest, readPages } from "./log-pages.ts"
import type { Values } from "./log-query.ts"
import {
  ENCODING,
  IDENTITY,
  Identity,
  LINEAGES,
  REVOCATIONS,
  SESSION,
  SLOTS,
  type Slot,
  shortRead,
  TABLES,
  WHATS,
} from "./queries.ts"
import { Whats } from "./what.ts"

export interface Page extends Entries {
  readonly head: Head
  /** Whether there is more than fits, and none of it is here: read it with `pages`. */
  readonly cut: boolean
}

/** One reading connection. Any failure makes it useless: close it and open another. */
export interface Session {
  readonly lineage: string
  /** The lineages whose cursors hold, the present one among them. */
  readonly lineages: ReadonlySet<string>
  /** What became visible since the snapshot, in order, if it is at most `limit` rows of a moderate size. */
  read(since: Snapshot, limit: number): Promise<Page>
  /** The same without a limit, in pages of one snapshot. @param rest goes on where such a read was cut. */
  pages(since: Snapshot, size: number, rest?: Rest): AsyncGenerator<NumberedPage>
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

export interface SessionDeps {
  database: Database
  /** Rows were passed over. */
  onUnreadable(rows: readonly UnreadableRow[]): void
}

/** @throws as Changelog.open. */
export async function openSession({ database, onUnreadable }: SessionDeps): Promise<Session> {
  const connection = await openLogConnection(database)
  const { one, close } = connection
  try {
    await connection.run(SESSION)
    const lossy = (await connection.rows({ text: ENCODING })).length > 0
    const lineage = await one("select relay.meet_lineage()")
    const identity = Identity.parse((await connection.objects(IDENTITY, [lineage]))[0])
    const lineages = new Set((await connection.rows({ text: LINEAGES })).map(([id]) => id ?? ""))
    const revocations = async () =>
      (await connection.rows({ text: REVOCATIONS })).map(([text]) => Revocation.parse(JSON.parse(text ?? "")))
    const fence = async () => BigInt(await one("select pg_current_xact_id()::text"))
    const deps: EntriesDeps = { whats: whatsOf(connection), revocations, lossy }
    const short = new ShortReads(connection, identity, fence)
    const noted = <Some extends ReadRows>({ unreadable, ...rest }: Some): Omit<Some, "unreadable"> => {
      if (unreadable.length > 0) onUnreadable(unreadable)
      return rest
    }
    return {
      lineage,
      lineages,
      async read(since, limit) {
        const { head, rows } = await short.read(since, limit)
        if (rows === undefined) return { head, ...noEntries(), cut: true }
        const entries = noted(await readEntries(rows, deps))
        const changes = new TransactionOrder().page(entries.changes, true)
        return { head, ...entries, changes, cut: false }
      },
      async *pages(since, size, rest) {
        const order = rest?.order?.rest() ?? new TransactionOrder({ unknown: rest !== undefined })
        for await (const page of readPages(connection, identity, deps, { since, size, rest }))
          yield { ...noted(page), changes: order.page(page.changes, page.final), order }
      },
      now: async () => readSnapshot(await one("select pg_current_snapshot()::text")),
      revocations,
      async lease(durationMs) {
        await one("select relay.set_lease($1::int)", [durationMs])
      },
      endLease: async () => (await one("select relay.end_lease()::text")) === "true",
      fence,
      close,
    }
  } catch (error) {
    close()
    throw error
  }
}

const whatsOf = (connection: LogConnection): Whats =>
  new Whats({
    find: (ids) => connection.objects(WHATS, [ids]),
    tables: () => connection.objects(TABLES),
  })

/** A lineage that somebody has ended is noticed after so long at the latest. Milliseconds. */
const LINEAGE_MS = 1_000

/** The short reads of a session, each of as few tables as can have something. */
class ShortReads {
  readonly #connection: LogConnection
  readonly #fence: () => Promise<bigint>
  readonly #identity: Identity
  readonly #texts = new Map<string, string>()
  #lineageAskedAt = Number.NEGATIVE_INFINITY
  #place: Place | undefined
  /**
   * Whoever has no lower xid began to write when the place was known already: it wrote to that table and no other. A
   * snapshot alone does not tell, since transactions above its xmax may be running that wrote before.
   */
  #from = 0n

  constructor(connection: LogConnection, identity: Identity, fence: () => Promise<bigint>) {
    this.#connection = connection
    this.#identity = identity
    this.#fence = fence
  }

  /** @returns no rows if there are more than the limit, or one of them is large. */
  async read(since: Snapshot, limit: number): Promise<{ head: Head; rows: RawRow[] | undefined }> {
    const known = this.#place
    const single = known !== undefined && since.xmin >= this.#from
    let found = await this.#ask(single ? known.slot : undefined, since, limit)
    if (known === undefined || !samePlace(known, found.head.place)) {
      if (single) found = await this.#ask(undefined, since, limit)
      this.#from = await this.#fence()
      this.#place = found.head.place
    }
    return found
  }

  /** @param slot reads all tables if undefined. */
  async #ask(slot: Slot | undefined, since: Snapshot, limit: number) {
    const now = performance.now()
    const asks = slot === undefined || now - this.#lineageAskedAt >= LINEAGE_MS
    const inFlight = since.inFlight.size > 0
    const name = `commitcast_read_${slot ?? "all"}${inFlight ? "_in_flight" : ""}${asks ? "_lineage" : ""}`
    let text = this.#texts.get(name)
    if (text === undefined) {
      const slots = slot === undefined ? SLOTS : [slot]
      text = shortRead(this.#identity, { slots, inFlight, lineage: asks ? "asked" : "believed" })
      this.#texts.set(name, text)
    }
    const values = [String(since.xmax), String(limit + 1)]
    if (inFlight) values.push(`{${inFlightOf(since).join()}}`)
    const [first, ...rows] = await this.#connection.prepared({ name, text, values })
    const head = readHead(first, this.#identity)
    if (asks) this.#lineageAskedAt = now
    const cut = rows.length > limit || rows.some(([, , , , data]) => data === "")
    return { head, rows: cut ? undefined : rows.map(rawRow).sort(bySeq) }
  }
}

const rawRow = ([seq = null, xid, at = null, what = null, data = null]: Values): RawRow => {
  return { seq, xid: xid ?? "", at, what, data, tooLarge: false }
}

/** Most are positive numbers; others cannot be read or were not written by the capture, and come somewhere. */
function bySeq({ seq: one }: RawRow, { seq: two }: RawRow): number {
  const [a, b] = [one ?? "", two ?? ""]
  if (a.length !== b.length) return a.length - b.length
  return a < b ? -1 : Number(a > b)
}
