/** The hub: all connections, the lanes that they share, and the way of a batch into them. */

import type { Identity } from "../access/auth.ts"
import type { Revocations } from "../access/revocations.ts"
import { mayJoin } from "../access/rights.ts"
import { type Cursor, cursorText } from "../change/cursor.ts"
import type { Revocation } from "../change/revocation.ts"
import type { Connection } from "../fanout/connection.ts"
import { flush, relieve } from "../fanout/flush.ts"
import { checkpointFrame } from "../fanout/frames.ts"
import { createRouter } from "../fanout/router.ts"
import type { BatchPart, FeedConsumer } from "../feed/batch.ts"
import { TimeSlice } from "../lib/time-slice.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { Filter } from "../protocol/filter.ts"
import type { History } from "../replay/log-reads.ts"
import { createReplays, type Joined, type Position } from "../replay/replay.ts"
import type { ReplayBuffer } from "../replay/replay-buffer.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { agesOf } from "./age.ts"
import { createDerivedBoard } from "./derived-board.ts"
import { drain, type Pace } from "./drain.ts"
import { createHubStats } from "./stats.ts"
import { CHECKPOINT_MS, type SweepSettings, startSweep } from "./sweep.ts"

/** How many messages of a client may wait for the end of a batch or of its replay. */
const MAX_DEFERRED = 32
/** How long somebody with a cursor that the feed has not reached waits for it. Milliseconds. */
const REFRESH_MS = 5_000

export interface HubDeps {
  settings: SweepSettings & { maxLanes: number }
  log: Log
  metrics: Metrics
  recent: ReplayBuffer
  history: History
  /** Kept up to date by what the hub consumes. */
  revocations: Revocations
  /** Resolves after a read of the log that began later; false if there is none within the time. */
  refresh(timeoutMs: number): Promise<boolean>
}

export function createHub({ settings, log, metrics, recent, history, revocations, refresh }: HubDeps) {
  const connections = new Set<Connection>()
  const router = createRouter()
  const board = createDerivedBoard(router)
  /** What waits for the end of the batch in progress. */
  const atBatchEnd: Array<() => void> = []
  let head: Cursor | undefined
  /** The position before the batch in progress. */
  let before: Cursor | undefined
  let lineages: ReadonlySet<string> = new Set()
  let batch = 0
  let inBatch = false
  const position = (): Position => ({ head, lineages, inBatch })
  const replays = createReplays({
    recent,
    history,
    log,
    metrics,
    position,
    refresh: () => refresh(REFRESH_MS),
    goLive: (connection, channels) => {
      place(connection, channels)
      connection.pump()
    },
  })

  function place(connection: Connection, channels: ReadonlySet<string>): void {
    const identity = connection.identity as Identity
    const before = connection.lane
    const lane = router.laneFor({ channels, rights: identity.rights, filter: connection.filter })
    if (lane.members.length === 0) board.fill(lane)
    // Rights may name thousands of committees, and thousands of tokens the same.
    connection.identity = { ...identity, rights: lane.subscription.rights }
    connection.filter = lane.subscription.filter
    connection.enter(lane, inBatch ? batch : 0)
    router.retire(before)
  }

  /** Takes a connection out of its lane. */
  function release(connection: Connection): void {
    const lane = connection.lane
    replays.cancel(connection)
    connection.leave()
    router.retire(lane)
  }

  /** Between two batches, and when a replay has ended. @returns false if too much waits for that already. */
  function whenLive(connection: Connection, act: () => void): boolean {
    const replaying = replays.channels(connection) !== undefined
    if (!replaying && !inBatch) {
      act()
      return true
    }
    if (connection.deferred >= MAX_DEFERRED) return false
    connection.deferred++
    const later = () => {
      connection.deferred--
      if (!connection.closing) whenLive(connection, act)
    }
    if (replaying) replays.afterwards(connection, later)
    else atBatchEnd.push(later)
    return true
  }

  function endBatch(): void {
    inBatch = false
    for (const act of atBatchEnd.splice(0)) act()
    replays.advance()
  }

  async function closeAll(those: Iterable<Connection>, code: CloseCode, reason: string): Promise<void> {
    const slice = new TimeSlice()
    for (const connection of those) {
      connection.close(code, reason)
      if (slice.over) await slice.turn()
    }
  }

  /** Before the changes that come with them. Who is admitted meanwhile is judged by them already. */
  async function enforce(news: readonly Revocation[]): Promise<void> {
    revocations.learn(news)
    const slice = new TimeSlice()
    for (const connection of connections) {
      if (connection.identity !== undefined && revocations.refuses(connection.identity))
        connection.close(CloseCode.forbidden, "revoked")
      if (slice.over) await slice.turn()
    }
  }

  async function deliver(part: BatchPart): Promise<void> {
    if (part.revocations.length > 0) await enforce(part.revocations)
    if (part.first) {
      batch++
      inBatch = true
      before = head
      head = part.cursor
    }
    recent.append(part)
    const now = performance.now()
    const slice = new TimeSlice()
    const { touched, unseen } = await router.route(part.changes, slice)
    metrics.unrouted.inc(unseen)
    const mark = [checkpointFrame(part.cursor)]
    // A batch in pages ends with a checkpoint in any case: it closes the transactions whose last change was not known.
    const paged = !(part.first && part.final)
    const piece = { batch, changes: part.changes, closed: part.final }
    for (const lane of paged && part.final ? router.lanes() : touched) {
      const due = part.final && (paged || now - lane.checkpointAt >= CHECKPOINT_MS)
      if (due) lane.checkpointAt = now
      lane.unmarked = !due
      metrics.deliveries.inc(lane.visibleChanges.length * lane.members.length)
      lane.append(await lane.takeEntry(piece, due ? mark : [], slice), settings.laneBufferBytes)
      touched.add(lane)
    }
    await flush(touched, slice)
    if (touched.size > 0) for (const age of agesOf(part.changes, Date.now())) metrics.send.observe(age)
    if (!part.final) {
      replays.advance()
      await relieve(touched, settings.laneBufferBytes / 2)
      return
    }
    endBatch()
  }

  const joinedNow = (): Joined => ({
    cursor: head === undefined ? "" : cursorText(head),
    recovered: false,
    replayed: 0,
    reason: "no_cursor",
  })

  const consumer: FeedConsumer = {
    hasClients: () => connections.size > 0,
    deliver,
    showDerived: board.show,
    adopt(lineage, known) {
      lineages = known
      if (head !== undefined) head = { lineage, snapshot: head.snapshot }
    },
    lost() {
      if (!inBatch) return
      // What was sent of the batch comes again with the next; nobody may be told that all of it was sent.
      recent.abandon(before)
      head = before
      endBatch()
    },
    begin(cursor: Cursor, all: readonly Revocation[]) {
      revocations.begin(all)
      head = cursor
      recent.begin(cursor.snapshot)
      replays.advance()
    },
    reset() {
      head = undefined
      inBatch = false
      atBatchEnd.length = 0
      const cut = [...connections]
      // At once, for none of them may see what comes after; the closing takes its time.
      for (const connection of cut) release(connection)
      void closeAll(cut, CloseCode.cannotContinue, "changes may have been missed")
      replays.advance()
    },
  }
  const sweep = startSweep({ settings, position, connections, router, replays })

  return {
    ...createHubStats({ connections, router, replays }),
    consumer,
    lineage: (): string | undefined => head?.lineage,
    /** Whether clients can be told a position. */
    ready: (): boolean => head !== undefined,
    track(connection: Connection): void {
      connections.add(connection)
    },
    release,
    forget(connection: Connection): void {
      release(connection)
      connections.delete(connection)
    },
    /**
     * Places an authenticated connection: live at once, or after a replay.
     * @param answer told the cursor after which everything reaches the connection, before anything else is sent.
     */
    join(
      connection: Connection,
      channels: ReadonlySet<string>,
      since: string | undefined,
      answer: (joined: Joined) => void,
    ): void {
      if (head === undefined) return connection.close(CloseCode.tryAgain, "no position to begin from")
      if (since !== undefined) return replays.start(connection, channels, since, answer)
      place(connection, channels)
      answer(joinedNow())
      connection.pump()
    },
    /**
     * Changes a connection's channels between two batches, so that none is seen by half.
     * @param change told the channels and the identity of then; undefined changes nothing, and there is no answer.
     * @param since sets the position of the whole connection.
     * @param answer as that of `join`.
     * @returns false if too much waits already.
     */
    rejoin(
      connection: Connection,
      change: (channels: ReadonlySet<string>, identity: Identity) => ReadonlySet<string> | undefined,
      since: string | undefined,
      answer: (joined: Joined) => void,
    ): boolean {
      return whenLive(connection, () => {
        const { lane, identity } = connection
        if (lane === undefined || identity === undefined) return
        if (connection.overrun) return connection.close(CloseCode.slowConsumer, "slow consumer")
        const channels = change(lane.subscription.channels, identity)
        if (channels === undefined) return
        if (since === undefined) {
          place(connection, channels)
          answer(joinedNow())
          connection.pump()
        } else {
          connection.depart()
          router.retire(lane)
          replays.start(connection, channels, since, answer)
        }
      })
    },
    /**
     * Gives a connection another identity, until which the old one is in force with its end. A replay has it at once; a live
     * connection takes another lane.
     * @param done told the channels that are still allowed.
     * @returns false if too much waits already.
     */
    reauthorise(
      connection: Connection,
      identity: Identity,
      done: (channels: ReadonlySet<string>) => void,
    ): boolean {
      const allowed = (channels: ReadonlySet<string>) =>
        new Set([...channels].filter((channel) => mayJoin(channel, identity.user, identity.rights)))
      let kept: ReadonlySet<string> = new Set()
      const change = (channels: ReadonlySet<string>) => {
        connection.identity = identity
        kept = allowed(channels)
        return kept
      }
      const replayed = replays.channels(connection)
      if (replayed === undefined) {
        const unlessRevoked = (channels: ReadonlySet<string>) => {
          if (!revocations.refuses(identity)) return change(channels)
          // It was, while it waited.
          connection.close(CloseCode.forbidden, "revoked")
          return undefined
        }
        return this.rejoin(connection, unlessRevoked, undefined, () => done(kept))
      }
      replays.narrow(connection, change(replayed))
      done(kept)
      return true
    },
    /**
     * Whether a filter would make one lane too many. Channels and rights make lanes too, but by these nobody is refused:
     * a connection is in one lane only.
     */
    crowded: (identity: Identity, channels: ReadonlySet<string>, filter: Filter | undefined): boolean =>
      filter !== undefined &&
      router.size() >= settings.maxLanes &&
      !router.has({ channels, rights: identity.rights, filter }),
    /** Changes go on to those who have not been told yet. */
    async drain(pace: Pace): Promise<void> {
      await drain(connections, pace)
      sweep.stop()
    },
  }
}
export type Hub = ReturnType<typeof createHub>
