/** A long read of the log: in order, in pages that are bounded by rows and by bytes. */

import type { Snapshot } from "../change/cursor.ts"
import type { TransactionOrder } from "../change/order.ts"
import { type Entries, type EntriesDeps, type RawRow, type ReadRows, readEntries } from "./entries.ts"
import { type Head, readHead, readNewest } from "./head.ts"
import type { LogConnection } from "./log-connection.ts"
import type { Values } from "./log-query.ts"
import {
  BEGIN_PAGES,
  type Identity,
  INLINE_BYTES,
  LONG_QUERY_TIMEOUT_MS,
  longRead,
  MAX_ROW_BYTES,
  PLACED,
  SLOTS,
} from "./queries.ts"

/** A page of a long read. The head is the same in each, and its horizon holds until the last. */
export interface LogPage extends Entries {
  readonly head: Head
  /** The seq up to which everything was read; undefined if there was nothing. */
  readonly last: string | undefined
  readonly final: boolean
  /** Puts the pages that follow into order, where another read brings them. */
  readonly order?: TransactionOrder
}

/** A page of one among several. */
export interface NumberedPage extends LogPage {
  /** The newest `seq` that was given out when the read began. */
  readonly newest: bigint
}

/** What is left of a read that was cut: the changes of the same difference after a `seq`. */
export interface Rest {
  readonly until: Snapshot
  readonly after: string
  /** What is known of the order of the transactions that it goes on with. */
  readonly order?: TransactionOrder
}

export interface LongReadOptions {
  since: Snapshot
  /** The most rows of a page; a page has at most 16 KB for each, unless a single row is larger. */
  size: number
  /** Goes on where such a read was cut. */
  rest: Rest | undefined
}

interface LargeRow extends RawRow {
  data: string | null
  readonly bytes: number
  /** Where its data is, if it did not come with the row: the slot and the place in its table. */
  readonly place: string | null
}

export async function* readPages(
  connection: LogConnection,
  identity: Identity,
  deps: EntriesDeps,
  { since, size, rest }: LongReadOptions,
): AsyncGenerator<NumberedPage & ReadRows> {
  const fetch = (count: number): Promise<Values[]> =>
    connection.rows({
      text: `fetch ${count} from commitcast_pages`,
      query_timeout: LONG_QUERY_TIMEOUT_MS,
    })
  await connection.run(BEGIN_PAGES)
  try {
    await connection.rows({
      text: `declare commitcast_pages no scroll cursor for ${longRead(identity)}`,
      values: [String(since.xmax), inFlightOf(since), rest?.after ?? "0", rest?.until.text ?? null],
    })
    const [first] = await fetch(1)
    const head = readHead(first, identity)
    const newest = readNewest(first)
    let ended = false
    const waiting: LargeRow[] = []
    for (;;) {
      const page = takePage(waiting, size)
      // One more is known than is given, so that the last page is known to be the last.
      while (waiting.length === 0 && !ended) {
        const rows = await fetch(size)
        ended = rows.length < size
        waiting.push(...rows.map(largeRow))
        takeMore(page, waiting, size)
      }
      await fill(page, connection)
      const final = waiting.length === 0 && ended
      const last = page.at(-1)?.seq ?? undefined
      yield { head, newest, ...(await readEntries(page, deps)), last, final }
      if (final) return
    }
  } finally {
    await connection.run("rollback")
  }
}

/** As PostgreSQL takes them. */
export const inFlightOf = ({ inFlight }: Snapshot): string[] => [...inFlight].map(String)

function largeRow([
  seq = null,
  xid,
  at = null,
  what = null,
  data = null,
  bytes,
  place = null,
]: Values): LargeRow {
  const size = Number(bytes ?? 0)
  return { seq, xid: xid ?? "", at, what, data, bytes: size, place, tooLarge: size > MAX_ROW_BYTES }
}

function takePage(waiting: LargeRow[], size: number): LargeRow[] {
  const page: LargeRow[] = []
  takeMore(page, waiting, size)
  return page
}

/** Moves as many rows to the page as it may have. */
function takeMore(page: LargeRow[], waiting: LargeRow[], size: number): void {
  let bytes = sumOf(page)
  let count = 0
  for (const row of waiting) {
    const cost = costOf(row)
    const full = page.length + count >= size || bytes + cost > size * INLINE_BYTES
    if (full && page.length + count > 0) break
    bytes += cost
    count++
  }
  page.push(...waiting.splice(0, count))
}

const costOf = ({ bytes, tooLarge }: LargeRow): number => (tooLarge ? 0 : bytes)
const sumOf = (rows: readonly LargeRow[]): number => rows.reduce((sum, row) => sum + costOf(row), 0)

/** Fetches the data that did not come with the rows. They are committed, and nobody changes them. */
async function fill(page: readonly LargeRow[], connection: LogConnection): Promise<void> {
  const missing = page.filter(({ place, tooLarge }) => place !== null && !tooLarge)
  if (missing.length === 0) return
  const places = SLOTS.map((slot) =>
    missing.flatMap(({ place }) => (place?.startsWith(String(slot)) ? place.slice(1) : [])),
  )
  const found = new Map(
    (await connection.rows({ text: PLACED, values: places, query_timeout: LONG_QUERY_TIMEOUT_MS })).map(
      ([place, data]) => [place, data ?? null],
    ),
  )
  for (const row of missing) row.data = found.get(row.place) ?? null
}
