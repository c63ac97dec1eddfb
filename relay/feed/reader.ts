/** The reader: one read of the log after another, each delivered as one batch. */

import { type Change, seqOf } from "../change/change.ts"
import { contains, type Snapshot } from "../change/cursor.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { BatchPart, FeedConsumer } from "./batch.ts"
import type { Entries } from "./entries.ts"
import type { Head } from "./head.ts"
import { isTimeout } from "./log-connection.ts"
import type { LogPage, NumberedPage } from "./log-pages.ts"
import type { Session } from "./log-session.ts"

/** What a read has shown beside the changes that it delivered. */
export interface ReadResult {
  readonly snapshot: Snapshot
  readonly leaseMs: Head["leaseMs"]
  /** The ids of the transactions whose changes it brought. */
  readonly transactions: ReadonlySet<string>
}

export interface ReaderDeps {
  consumer: Pick<FeedConsumer, "deliver">
  metrics: Metrics
  /** Canaries were read. */
  onCanaries(canaries: readonly string[]): void
}

/** More changes than this are read in pages of this many. */
const PAGE = 1_000

export class Reader {
  readonly #deps: ReaderDeps
  #backlog = 0
  /** The size of a page. One that does not come in time is tried smaller. */
  #size = PAGE

  constructor(deps: ReaderDeps) {
    this.#deps = deps
  }

  /** At most so many changes of a read in pages are still to be delivered; 0 between two reads. */
  get backlog(): number {
    return this.#backlog
  }

  /**
   * Reads everything since a snapshot and delivers it.
   * @param onDelivered is called once all of it is delivered: even if the session fails right after, none may be read again.
   * @returns undefined if the log no longer holds everything since then.
   */
  async read(
    session: Session,
    since: Snapshot,
    onDelivered: (snapshot: Snapshot) => void,
  ): Promise<ReadResult | undefined> {
    try {
      const result = await this.#readOnce(session, since, onDelivered)
      this.#size = Math.min(PAGE, this.#size * 2)
      return result
    } catch (error) {
      if (isTimeout(error)) this.#size = Math.ceil(this.#size / 4)
      throw error
    } finally {
      this.#backlog = 0
    }
  }

  async #readOnce(
    session: Session,
    since: Snapshot,
    onDelivered: (snapshot: Snapshot) => void,
  ): Promise<ReadResult | undefined> {
    const { metrics, onCanaries } = this.#deps
    const began = performance.now()
    const page = await session.read(since, this.#size)
    const seconds = secondsSince(began)
    if (!contains(since, page.head.horizon)) return undefined
    const parts = page.cut ? session.pages(since, this.#size) : [{ ...page, final: true }]
    const transactions = new Set<string>()
    let { head } = page
    let count = 0
    let first = true
    for await (const part of parts) {
      head = part.head
      if (!contains(since, head.horizon)) return undefined
      for (const { xid } of part.changes) transactions.add(xid)
      count += part.changes.length
      if ("newest" in part) this.#backlog = leftFrom(part)
      if (part.changes.length > 0 || since.text !== head.snapshot.text)
        await this.#deliver(part, { lineage: session.lineage, snapshot: head.snapshot }, first)
      onCanaries(part.canaries)
      if (part.final) onDelivered(head.snapshot)
      first = false
    }
    // What is counted is counted last: clients wait for everything before.
    metrics.read.observe(seconds)
    if (count > 0) metrics.batch.observe(count)
    return { snapshot: head.snapshot, leaseMs: head.leaseMs, transactions }
  }

  async #deliver(
    part: Entries & Pick<LogPage, "final">,
    cursor: BatchPart["cursor"],
    first: boolean,
  ): Promise<void> {
    const { consumer, metrics } = this.#deps
    const { changes, revocations, final } = part
    const began = performance.now()
    await consumer.deliver({ changes, revocations, cursor, first, final })
    metrics.fanout.observe(secondsSince(began))
    for (const { table, op, count } of runsOf(changes)) metrics.events.inc({ table, op }, count)
    for (const change of changes)
      if (change.kind === "row" && change.oversize) metrics.oversize.inc({ table: change.table })
    if (revocations.length > 0) metrics.events.inc({ table: "", op: "revocation" }, revocations.length)
  }
}

const secondsSince = (began: number): number => (performance.now() - began) / 1_000

/** How many changes there are at most from this page on. */
const leftFrom = ({ newest, changes }: NumberedPage): number =>
  Number(newest - (changes[0] === undefined ? newest : seqOf(changes[0]))) + 1

/** Runs of changes of one table and operation: a counter takes each at once. */
function runsOf(changes: readonly Change[]): Array<{ table: string; op: string; count: number }> {
  const runs: Array<{ table: string; op: string; count: number }> = []
  for (const change of changes) {
    const { op } = change
    const table = change.kind === "message" ? "" : change.table
    const run = runs.at(-1)
    if (run?.table === table && run.op === op) run.count++
    else runs.push({ table, op, count: 1 })
  }
  return runs
}
