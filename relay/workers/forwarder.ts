/**
 * The forwarder: one feed for several workers. To the feed it is a consumer like a hub; each worker has a hub of its own
 * behind a channel. A part of a batch goes to all of them as the same bytes, and the feed reads on when the slowest is one
 * part behind: under load the batches grow, and what waits in the channels does not.
 */

import type { Revocations } from "../access/revocations.ts"
import { logRowOf } from "../change/change.ts"
import { type Cursor, cursorText } from "../change/cursor.ts"
import type { FeedConsumer } from "../feed/batch.ts"
import { deferred } from "../lib/deferred.ts"
import type { FeedMessageText } from "./feed-message.ts"
import { type IpcChannel, lineOf } from "./ipc.ts"
import { Share } from "./share.ts"

/** Parts that a worker may not have taken when the next is read. */
const AHEAD = 1

export interface Forwarder {
  readonly consumer: FeedConsumer
  /** Lets a worker take part, from the end of the batch in progress on. */
  add(channel: Pick<IpcChannel, "write">): Share
}

/** @param revocations is kept up to date, for workers that come. */
export function createForwarder(revocations: Revocations): Forwarder {
  const members = new Set<Share>()
  const newcomers = new Set<Share>()
  let adopted: FeedMessageText | undefined
  /** What each derived message has now, for those who come. */
  const derived = new Map<string, FeedMessageText>()
  let head: Cursor | undefined
  /** The position before the batch in progress; undefined between two. */
  let before: Cursor | undefined
  let inBatch = false
  let waiting = deferred<void>()

  function send(message: FeedMessageText, to: Iterable<Share> = members): void {
    const line = lineOf(message)
    for (const share of to) share.channel.write(line)
  }

  const positionOf = (cursor: Cursor): FeedMessageText => ({
    kind: "position",
    cursor: cursorText(cursor),
    revocations: revocations.list(),
  })

  function admit(): void {
    if (adopted === undefined) return
    send(adopted, newcomers)
    if (head !== undefined) send(positionOf(head), newcomers)
    for (const set of derived.values()) send(set, newcomers)
    for (const share of newcomers) members.add(share)
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
    // Workers do not say whether they have clients.
    hasClients: () => true,
    async deliver({ changes, revocations: news, cursor, first, final }) {
      revocations.learn(news)
      if (first) {
        before = head
        head = cursor
        inBatch = true
      }
      const now = performance.now()
      for (const share of members) share.owe(now)
      const rows = changes.map(logRowOf)
      send({ kind: "part", rows, revocations: [...news], cursor: cursorText(cursor), first, final })
      await whenTaken()
      if (!final) return
      inBatch = false
      admit()
    },
    showDerived(set) {
      const message: FeedMessageText = { kind: "derived", set: { ...set, values: [...set.values] } }
      if (set.values.length === 0) derived.delete(set.name)
      else derived.set(set.name, message)
      send(message)
    },
    adopt(lineage, lineages) {
      adopted = { kind: "adopt", lineage, lineages: [...lineages] }
      if (head !== undefined) head = { lineage, snapshot: head.snapshot }
      send(adopted)
      admit()
    },
    lost() {
      send({ kind: "lost" })
      if (!inBatch) return
      head = before
      inBatch = false
      admit()
    },
    begin(cursor, all) {
      head = cursor
      revocations.begin(all)
      send(positionOf(cursor))
    },
    reset() {
      head = undefined
      inBatch = false
      send({ kind: "reset" })
    },
  }

  return {
    consumer,
    add(channel) {
      const share = new Share(channel, {
        onTaken: () => waiting.resolve(),
        onEnd(ended) {
          members.delete(ended)
          newcomers.delete(ended)
          waiting.resolve()
        },
      })
      newcomers.add(share)
      if (!inBatch) admit()
      return share
    },
  }
}
