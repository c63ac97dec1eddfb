/**
 * Replay: brings a connection from its cursor to the present. What it misses comes from memory where the recent batches
 * cover its position, else from the log; then, between two batches, it takes its place in a lane. A position is a set of
 * transactions, so a cursor of another relay, or fresh from SQL and a little ahead of this one's feed, is nothing special.
 */

import type { Change } from "../change/change.ts"
import { type Cursor, contains, cursorText, parseCursor, type Snapshot, union } from "../change/cursor.ts"
import type { Connection } from "../fanout/connection.ts"
import { checkpointFrame } from "../fanout/frames.ts"
import { type Subscription, subscriptionKey } from "../fanout/visibility.ts"
import type { Rest } from "../feed/log-session.ts"
import { createSliceQueue } from "../lib/time-slice.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { Reason, Recovery } from "../protocol/server-message.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { createFrameCache, type MissedFrames } from "./frame-cache.ts"
import type { History } from "./log-reads.ts"
import type { ReplayBuffer } from "./replay-buffer.ts"

/** What a client is told when it has come, and the position from which on it misses nothing. */
export type Joined = { cursor: string } & Recovery

/** Where the feed is. */
export interface Position {
  readonly head: Cursor | undefined
  /** Those whose cursors hold. */
  readonly lineages: ReadonlySet<string>
  readonly inBatch: boolean
}

export interface ReplayDeps {
  recent: ReplayBuffer
  history: History
  log: Log
  metrics: Metrics
  position(): Position
  /** Resolves after a whole read of the log that began later; false if there is none soon. */
  refresh(): Promise<boolean>
  /** Gives the connection its place among the live ones. */
  goLive(connection: Connection, channels: ReadonlySet<string>): void
}

export interface Replays {
  /** @param answer is told before the first change, in the same turn. */
  start(
    connection: Connection,
    channels: ReadonlySet<string>,
    since: string,
    answer: (joined: Joined) => void,
  ): void
  /** The channels of a connection in a replay; undefined if it is in none. */
  channels(connection: Connection): ReadonlySet<string> | undefined
  /** Takes channels away at once, and takes note of the connection's new rights. */
  narrow(connection: Connection, channels: ReadonlySet<string>): void
  /** Runs when the connection is live. */
  afterwards(connection: Connection, act: () => void): void
  cancel(connection: Connection): void
  /** The feed has delivered something. */
  advance(): void
  connections(): Iterable<Connection>
  size(): number
}

/** A step from memory ends with the part that passes this many bytes, or milliseconds. */
const STEP_BYTES = 131_072
const STEP_MS = 2

interface Replay {
  readonly connection: Connection
  subscription: Subscription
  /** The subscription's key. */
  key: string
  /** What it has: its cursor, and everything up to the last whole batch that was sent. */
  has: Snapshot
  /** What is missing of the batch that it is in. */
  rest: Rest | undefined
  count: number
  source: "memory" | "log"
  /** Undefined once the client was told. */
  answer: ((joined: Joined) => void) | undefined
  /** The cursor that it came with. */
  readonly since: string
  readonly afterwards: Array<() => void>
}

export function createReplays({
  recent,
  history,
  log,
  metrics,
  position,
  refresh,
  goLive,
}: ReplayDeps): Replays {
  const running = new Map<Connection, Replay>()
  const turns = createSliceQueue()
  const excerpts = createFrameCache()
  let waiting: Array<() => void> = []

  const gone = (replay: Replay): boolean => running.get(replay.connection) !== replay

  const advanced = (): Promise<void> =>
    new Promise((resolve) => {
      waiting.push(resolve)
    })

  function tell(replay: Replay, joined: Joined): void {
    replay.answer?.(joined)
    replay.answer = undefined
  }

  /** Nothing can be promised: live from now on, and the client loads its state. */
  function refuse(replay: Replay, reason: Reason): void {
    const { head } = position()
    if (gone(replay) || head === undefined) return
    metrics.resumes.inc({ result: reason })
    running.delete(replay.connection)
    tell(replay, { cursor: cursorText(head), recovered: false, replayed: 0, reason })
    // Who does not read its answers has been closed.
    if (replay.connection.closing) return
    goLive(replay.connection, replay.subscription.channels)
    for (const act of replay.afterwards) act()
  }

  /** It can be tried again. */
  function interrupt(replay: Replay): void {
    if (gone(replay)) return
    metrics.resumes.inc({ result: "interrupted" })
    replay.connection.close(CloseCode.tryAgain, "the replay was interrupted")
  }

  function excerpt(replay: Replay, changes: readonly Change[], closed: boolean): MissedFrames {
    const { has, subscription, key, connection } = replay
    return excerpts.of(changes, closed, { has, subscription, key, user: connection.user })
  }

  function send(replay: Replay, chunks: readonly Buffer[], count: number): void {
    tell(replay, { cursor: replay.since, recovered: true, replayed: null, reason: null })
    replay.count += count
    metrics.replayed.inc({ source: replay.source }, count)
    replay.connection.push(chunks)
  }

  /** Tells where the client stands within the replay: whoever is slow, or cut off again and again, need not begin again. */
  function tellPosition(replay: Replay): void {
    const { head } = position()
    if (replay.answer !== undefined || replay.rest !== undefined || head === undefined) return
    replay.connection.push([checkpointFrame({ lineage: head.lineage, snapshot: replay.has })])
  }

  /** Everything was sent up to the feed's position, which does not move meanwhile. */
  function finish(replay: Replay, head: Cursor, chunks: readonly Buffer[], count: number): void {
    const replayed = replay.count + count
    tell(replay, { cursor: replay.since, recovered: true, replayed, reason: null })
    metrics.resumes.inc({ result: replay.source })
    metrics.replayed.inc({ source: replay.source }, count)
    running.delete(replay.connection)
    replay.connection.push([...chunks, checkpointFrame(head, replayed)])
    goLive(replay.connection, replay.subscription.channels)
    for (const act of replay.afterwards) act()
  }

  /** Walks the recent batches. @returns whether the replay is over; otherwise memory does not reach far enough. */
  async function fromMemory(replay: Replay): Promise<boolean> {
    let index = recent.first()
    for (;;) {
      const chunks: Buffer[] = []
      let bytes = 0
      let count = 0
      let part = recent.at(index)
      const stepEnd = performance.now() + STEP_MS
      for (; part !== undefined && part !== null; part = recent.at(++index)) {
        if (bytes >= STEP_BYTES || performance.now() > stepEnd) break
        if (replay.rest === undefined && contains(replay.has, part.cursor.snapshot)) continue
        const missed = excerpt(replay, part.changes, part.final)
        chunks.push(...missed.chunks)
        bytes += missed.bytes
        count += missed.count
        if (part.final) replay.has = union(replay.has, part.cursor.snapshot)
        const after = part.changes.at(-1)?.id ?? replay.rest?.after ?? "0"
        replay.rest = part.final ? undefined : { until: part.cursor.snapshot, after }
      }
      const { head, inBatch } = position()
      if (head === undefined) return true
      const atEnd = part === undefined && !inBatch && replay.rest === undefined
      if (atEnd && contains(head.snapshot, replay.has)) {
        finish(replay, head, chunks, count)
        return true
      }
      send(replay, chunks, count)
      if (count > 0) tellPosition(replay)
      if (atEnd && !(await caughtUp(replay, replay.has))) return true
      if (!atEnd && part === undefined) await advanced()
      if (!replay.connection.ready) await replay.connection.whenReady()
      await turns.next()
      if (gone(replay)) return true
      if (recent.at(index) === null || (replay.rest === undefined && !recent.covers(replay.has))) return false
      if (replay.rest !== undefined && index === recent.end() && !position().inBatch) return false
    }
  }

  /** Reads the log once. @returns whether the replay is over. */
  async function fromLog(replay: Replay): Promise<boolean> {
    const { connection } = replay
    replay.source = "log"
    const outcome = await history.read({
      since: replay.has,
      rest: replay.rest,
      take: ({ changes, final }) => {
        if (gone(replay)) return
        const { chunks, count } = excerpt(replay, changes, final)
        send(replay, chunks, count)
      },
      ready: () => connection.ready,
      whenReady: () => connection.whenReady(),
      gone: () => gone(replay),
    })
    if (gone(replay)) return true
    switch (outcome.kind) {
      case "done": {
        replay.has = union(replay.has, outcome.until)
        replay.rest = undefined
        tellPosition(replay)
        return false
      }
      case "cut":
        replay.rest = outcome.rest
        await connection.whenReady()
        return gone(replay)
      case "too_old":
        if (replay.answer !== undefined) refuse(replay, "too_old")
        else connection.close(CloseCode.cannotContinue, "the log was rotated")
        return true
      case "failed":
        interrupt(replay)
        return true
    }
  }

  /** Waits until the feed has all of a position. @returns false if it has not and the replay has ended. */
  async function caughtUp(replay: Replay, snapshot: Snapshot): Promise<boolean> {
    const reached = () => {
      const { head } = position()
      return head !== undefined && contains(head.snapshot, snapshot)
    }
    if (reached()) return true
    const fresh = await refresh()
    if (gone(replay)) return false
    if (reached()) return true
    if (fresh && replay.answer !== undefined) refuse(replay, "ahead")
    else interrupt(replay)
    return false
  }

  /** Whether the cursor is of a lineage that holds: the feed may have to look whether there is a newer one. */
  async function ofThisLog(replay: Replay, cursor: Cursor): Promise<boolean> {
    if (position().lineages.has(cursor.lineage)) return true
    const fresh = await refresh()
    if (gone(replay)) return false
    if (position().lineages.has(cursor.lineage)) return true
    if (fresh) refuse(replay, "lineage")
    else interrupt(replay)
    return false
  }

  async function run(replay: Replay, cursor: Cursor): Promise<void> {
    // Who asks again and again without reading gets the next answer when it has read the last.
    if (!replay.connection.ready) await replay.connection.whenReady()
    await turns.next()
    if (gone(replay) || !(await ofThisLog(replay, cursor)) || !(await caughtUp(replay, cursor.snapshot)))
      return
    for (;;) {
      const memory = replay.rest === undefined && recent.covers(replay.has)
      if (memory ? await fromMemory(replay) : await fromLog(replay)) return
      await turns.next()
      if (gone(replay)) return
    }
  }

  return {
    start(connection, channels, since, answer) {
      const cursor = parseCursor(since)
      const has = cursor?.snapshot ?? position().head?.snapshot
      if (has === undefined) return
      const replay: Replay = {
        connection,
        ...subscriptionOf(connection, channels),
        has,
        rest: undefined,
        count: 0,
        source: "memory",
        answer,
        since,
        afterwards: [],
      }
      running.set(connection, replay)
      if (cursor === undefined) refuse(replay, "malformed")
      else
        run(replay, cursor).catch((error: Error) => {
          log.error(
            { event: "replay_failed", error: error.message },
            "a replay failed: the client tries again",
          )
          interrupt(replay)
        })
    },
    channels: (connection) => running.get(connection)?.subscription.channels,
    narrow(connection, channels) {
      const replay = running.get(connection)
      if (replay !== undefined) Object.assign(replay, subscriptionOf(connection, channels))
    },
    afterwards(connection, act) {
      running.get(connection)?.afterwards.push(act)
    },
    cancel(connection) {
      running.delete(connection)
    },
    advance() {
      const woken = waiting
      waiting = []
      for (const resolve of woken) resolve()
    },
    connections: () => running.keys(),
    size: () => running.size,
  }
}

function subscriptionOf(
  { identity, filter }: Connection,
  channels: ReadonlySet<string>,
): Pick<Replay, "subscription" | "key"> {
  if (identity === undefined) throw new Error("only who is authenticated can come back")
  const subscription = { channels, rights: identity.rights, filter }
  return { subscription, key: subscriptionKey(subscription) }
}
