/** A read group: returning clients that share one read of the log, each from its own position. */

import { contains, intersection, type Snapshot } from "../change/cursor.ts"
import type { LogPage, Rest } from "../feed/log-pages.ts"
import { inSlices } from "../lib/time-slice.ts"

/** A client that misses what the log holds since a position. */
export interface Reader {
  /** Whose it is: reads are shared out by user. */
  readonly user: string
  readonly since: Snapshot
  /** What an earlier read of the same left over. */
  readonly rest: Rest | undefined
  /** Takes a page; some of its changes may be visible in `since`. */
  take(page: LogPage): void
  /** Whether it can take another. */
  ready(): boolean
  /** Resolves when it can, or is gone. */
  whenReady(): Promise<void>
  gone(): boolean
}

export type Outcome =
  /** Everything up to here was taken. */
  | { kind: "done"; until: Snapshot }
  /** It did not keep up, or the time of one read was over: ask again for the rest. */
  | { kind: "cut"; rest: Rest }
  /** The log does not hold it any more. */
  | { kind: "too_old" }
  /** Too many of the user's wait already. */
  | { kind: "refused" }
  | { kind: "failed" }

/** A reader whose read has not ended. */
export interface PendingRead {
  readonly reader: Reader
  /** About how far back it is: readers of the same distance can share a read. */
  readonly distance: number
  settle(outcome: Outcome): void
}

/** How long a page waits for the slower readers. Milliseconds. */
const PATIENCE_MS = 250

export class ReadGroup {
  /** Every member misses only what lies after this. */
  readonly since: Snapshot
  readonly rest: Rest | undefined
  readonly users: ReadonlySet<string>
  readonly #members: Set<PendingRead>

  /** @param members at least one, with the same `rest`. */
  constructor(members: readonly [PendingRead, ...PendingRead[]]) {
    this.since = positionsOf(members).reduce(intersection)
    this.rest = members[0].reader.rest
    this.users = new Set(members.map(({ reader }) => reader.user))
    this.#members = new Set(members)
  }

  get empty(): boolean {
    return this.#members.size === 0
  }

  /** Dismisses readers that miss something which is no longer in the log. */
  dismissOlderThan(horizon: Snapshot): void {
    for (const member of this.#members)
      if (!contains(member.reader.since, horizon)) this.#dismiss(member, { kind: "too_old" })
  }

  async give(page: LogPage): Promise<void> {
    await inSlices(this.#members, ({ reader }) => reader.take(page))
  }

  /** Waits for a while for the readers that cannot take more. */
  async waitForSlow(): Promise<void> {
    const busy = [...this.#members].filter(({ reader }) => !reader.ready())
    if (busy.length === 0) return
    let timer: NodeJS.Timeout | undefined
    const enough = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, PATIENCE_MS)
    })
    await Promise.race([Promise.all(busy.map(({ reader }) => reader.whenReady())), enough])
    clearTimeout(timer)
  }

  dismissGone(): void {
    for (const member of this.#members) if (member.reader.gone()) this.#dismiss(member, { kind: "failed" })
  }

  /** Dismisses readers that cannot take more: they go on with another read. */
  dismissSlow(rest: () => Rest): void {
    const slow = [...this.#members].filter(({ reader }) => !reader.ready())
    if (slow.length === 0) return
    const left = rest()
    for (const member of slow) this.#dismiss(member, { kind: "cut", rest: left })
  }

  /**
   * Takes out all that are left, to be read for otherwise: a read for those that are less far back than half of them may
   * bring little, where one for all brings much.
   */
  split(): { recent: PendingRead[]; older: PendingRead[] } {
    const positions = positionsOf(this.#members).sort((a, b) => (a.xmin > b.xmin ? -1 : 1))
    const half = new Set(positions.slice(0, positions.length / 2).map(({ text }) => text))
    const [recent, older]: [PendingRead[], PendingRead[]] = [[], []]
    for (const member of this.#members) (half.has(member.reader.since.text) ? recent : older).push(member)
    this.#members.clear()
    return { recent, older }
  }

  /** Dismisses all that are left. */
  dismissAll(outcome: Outcome): void {
    for (const member of this.#members) this.#dismiss(member, outcome)
  }

  #dismiss(member: PendingRead, outcome: Outcome): void {
    this.#members.delete(member)
    member.settle(outcome)
  }
}

/** The positions of readers, each once. */
const positionsOf = (members: Iterable<PendingRead>): Snapshot[] => {
  const positions = new Map<string, Snapshot>()
  for (const { reader } of members) positions.set(reader.since.text, reader.since)
  return [...positions.values()]
}
