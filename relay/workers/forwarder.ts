/**
 * The forwarder: one feed for several workers. To the feed it is a consumer like a hub; each worker has a hub of its
 * own behind a pipe. A part of a batch goes to all of them as the same bytes, and the feed reads on when the slowest is
 * one part behind: under load the batches grow, and the pipes do not.
 */

import type { Revocations } from "../access/revocations.ts"
import { logRowOf } from "../change/change.ts"
import { type Cursor, cursorText } from "../change/cursor.ts"
import type { FeedConsumer } from "../feed/batch.ts"
import { deferred } from "../lib/deferred.ts"
import type { FeedMessageText } from "./feed-message.ts"
import { type IpcChannel, lineOf } from "./ipc.ts"

/** Parts that a worker may not have taken when the next is read. */
const AHEAD = 1

/** A worker's share in the feed. */
export interface Share {
  /** The worker has handed one more part to its lanes. */
  taken(): void
  /** For how long it has taken nothing although a part waits; milliseconds. */
  stuckFor(): number
  /** So many milliseconds do not count: this process itself did not run. */
  excuse(ms: number): void
  /** The worker is gone. */
  end(): void
}

export interface Forwarder {
  readonly consumer: FeedConsumer
  /** Lets a worker take part, from the end of the batch in progress on. */
  add(pipe: Pick<IpcChannel, "write">): Share
}

interface Member {
  readonly pipe: Pick<IpcChannel, "write">
  owed: number
  /** Since when the oldest part that it owes waits. */
  since: number
}

/** @param revocations is kept up to date, for workers that come. */
export function createForwarder(revocations: Revocations): Forwarder {
  const members = new Set<Member>()
  const newcomers = new Set<Member>()
  let met: FeedMessageText | undefined
  /** What each derived message has now, for those who come. */
  const figures = new Map<string, FeedMessageText>()
  let head: Cursor | undefined
  /** The position before the batch in progress; undefined between two. */
  let before: Cursor | undefined
  let inBatch = false
  let waiting = deferred<void>()

  function tell(message: FeedMessageText, to: Iterable<Member> = members): void {
    const line = lineOf(message)
    for (const member of to) member.pipe.write(line)
  }

  const positionOf = (cursor: Cursor): FeedMessageText => ({
    kind: "position",
    cursor: cursorText(cursor),
    revocations: revocations.list(),
  })

  function admit(): void {
    if (met === undefined) return
    tell(met, newcomers)
    if (head !== undefined) tell(positionOf(head), newcomers)
    for (const set of figures.values()) tell(set, newcomers)
    for (const member of newcomers) members.add(member)
    newcomers.clear()
  }

  /** Resolves when nobody is further behind than allowed. */
  async function whenTaken(): Promise<void> {
    while ([...members].some(({ owed }) => owed > AHEAD)) {
      waiting = deferred()
      await waiting.promise
    }
  }

  const consumer: FeedConsumer = {
    // Workers do not tell whether they have clients.
    hasClients: () => true,
    async deliver({ changes, revocations: news, cursor, first, final }) {
      revocations.learn(news)
      if (first) {
        before = head
        head = cursor
        inBatch = true
      }
      const now = performance.now()
      for (const member of members) if (member.owed++ === 0) member.since = now
      const rows = changes.map(logRowOf)
      tell({ kind: "part", rows, revocations: [...news], cursor: cursorText(cursor), first, final })
      await whenTaken()
      if (!final) return
      inBatch = false
      admit()
    },
    show(set) {
      const message: FeedMessageText = { kind: "figures", set: { ...set, figures: [...set.figures] } }
      if (set.figures.length === 0) figures.delete(set.name)
      else figures.set(set.name, message)
      tell(message)
    },
    meet(lineage, lineages) {
      met = { kind: "meet", lineage, lineages: [...lineages] }
      if (head !== undefined) head = { lineage, snapshot: head.snapshot }
      tell(met)
      admit()
    },
    lost() {
      tell({ kind: "lost" })
      if (!inBatch) return
      head = before
      inBatch = false
      admit()
    },
    begin(cursor, all) {
      head = cursor
      revocations.begin(all)
      tell(positionOf(cursor))
    },
    reset() {
      head = undefined
      inBatch = false
      tell({ kind: "reset" })
    },
  }

  return {
    consumer,
    add(pipe) {
      const member: Member = { pipe, owed: 0, since: 0 }
      newcomers.add(member)
      if (!inBatch) admit()
      return {
        taken() {
          member.owed--
          member.since = performance.now()
          waiting.resolve()
        },
        stuckFor: () => (member.owed === 0 ? 0 : performance.now() - member.since),
        excuse(ms) {
          member.since += ms
        },
        end() {
          members.delete(member)
          newcomers.delete(member)
          waiting.resolve()
        },
      }
    },
  }
}
