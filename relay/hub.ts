/** The hub: all connections, the lanes that they share, and the way of a batch into them. */

import { setTimeout as sleep, setImmediate as yieldLoop } from "node:timers/promises"
import type { Identity } from "./auth.ts"
import { ALL } from "./change.ts"
import type { Connection } from "./connection.ts"
import { type Cursor, cursorText } from "./cursor.ts"
import type { BatchPart, FeedConsumer } from "./feed.ts"
import { createFrameCache, type Lane } from "./lane.ts"
import type { Metrics } from "./metrics.ts"
import { CloseCode, encodeMessage, type Recovery } from "./protocol.ts"
import { createRouter } from "./router.ts"
import { mayJoin } from "./subscription.ts"
import { frameText, PING_FRAME } from "./wire.ts"

export interface HubSettings {
  laneBufferBytes: number
  heartbeatMs: number
  authTimeoutMs: number
}

/** A socket that takes nothing for this long, although something waits, is a slow consumer. Milliseconds. */
const SLOW_MS = 10_000
/** Whoever was not heard for a heartbeat and this long is taken for dead. Milliseconds. */
const PONG_MS = 10_000
/** A flush yields to heartbeats, health and new connections after so long. Milliseconds. */
const SLICE_MS = 2
/** How long a huge batch waits for readers that keep up, a page. Milliseconds. */
const RELIEF_MS = 1_000
const CHECKPOINT_MS = 1_000

export interface HubStats {
  connections: number
  users: Record<string, number>
  channels: Record<string, number>
  lanes: number
}

export function createHub({ settings, metrics }: { settings: HubSettings; metrics: Metrics }) {
  const connections = new Set<Connection>()
  const router = createRouter()
  /** What waits for the end of the batch in progress. */
  const atBatchEnd: Array<() => void> = []
  let head: Cursor | undefined
  let batch = 0
  let inBatch = false
  let heartbeatAt = Date.now()

  function place(connection: Connection, channels: ReadonlySet<string>): void {
    const identity = connection.identity as Identity
    const before = connection.lane
    connection.enter(router.laneFor({ channels, rights: identity.rights }), inBatch ? batch : 0)
    router.retire(before)
  }

  /** Takes a connection out of its lane. */
  function release(connection: Connection): void {
    const lane = connection.lane
    connection.leave()
    router.retire(lane)
  }

  async function flush(touched: Iterable<Lane>): Promise<void> {
    let sliceStart = performance.now()
    for (const lane of touched) {
      // Of those who come or go meanwhile, the former have nothing to write yet and the latter no more.
      const members = [...lane.members]
      const start = lane.start++
      for (let i = 0; i < members.length; i++) {
        members[(start + i) % members.length]?.pump()
        if (i % 32 === 31 && performance.now() - sliceStart > SLICE_MS) {
          await yieldLoop()
          sliceStart = performance.now()
        }
      }
      lane.trim()
    }
  }

  /** Lets readers that keep up catch up before the next page of a huge batch. */
  async function relieve(touched: Iterable<Lane>): Promise<void> {
    const deadline = Date.now() + RELIEF_MS
    for (const lane of touched) {
      while (lane.bytes > settings.laneBufferBytes / 2 && Date.now() < deadline) {
        await sleep(2)
        lane.trim()
      }
    }
  }

  async function deliver(part: BatchPart): Promise<void> {
    if (part.first) {
      batch++
      inBatch = true
      head = part.cursor
    }
    const now = Date.now()
    const { touched, unseen } = router.route(part.changes)
    metrics.unrouted.inc(unseen)
    const cache = createFrameCache()
    const mark = frameText(encodeMessage({ type: "checkpoint", cursor: cursorText(part.cursor) }))
    // A batch in pages ends with a checkpoint in any case: it closes the transactions whose last change was not known.
    const paged = !(part.first && part.final)
    for (const lane of paged && part.final ? router.lanes() : touched) {
      const due = part.final && (paged || now - lane.checkpointAt >= CHECKPOINT_MS)
      if (due) lane.checkpointAt = now
      lane.unmarked = !due
      metrics.deliveries.inc(lane.sights.length * lane.members.length)
      lane.append(
        lane.takeEntry(batch, part.changes, cache, part.final, due ? [mark] : []),
        settings.laneBufferBytes,
      )
      touched.add(lane)
    }
    await flush(touched)
    if (!part.final) {
      await relieve(touched)
      return
    }
    inBatch = false
    for (const act of atBatchEnd.splice(0)) act()
  }

  /** Sends all lanes, or some, frames that belong to no batch. */
  function announce(to: Iterable<Lane>, frames: readonly Buffer[]): void {
    const shared = [Buffer.concat(frames)]
    const entry = { batch: Number.POSITIVE_INFINITY, shared, own: undefined, bytes: shared[0]?.length ?? 0 }
    const touched = [...to]
    for (const lane of touched) lane.append(entry, settings.laneBufferBytes)
    void flush(touched)
  }

  function checkpoint(cursor: Cursor, lane: Lane, now: number): void {
    lane.checkpointAt = now
    lane.unmarked = false
    announce([lane], [frameText(encodeMessage({ type: "checkpoint", cursor: cursorText(cursor) }))])
  }

  function heartbeat(now: number): void {
    heartbeatAt = now
    announce(router.lanes(), [PING_FRAME, frameText(encodeMessage({ type: "ping" }))])
  }

  function check(connection: Connection, now: number): void {
    if (connection.closingSince !== 0) return connection.reap(now)
    if (connection.identity === undefined) {
      if (now - connection.connectedAt > settings.authTimeoutMs)
        connection.close(CloseCode.notAuthenticated, "not authenticated in time", now)
      return
    }
    if (now > connection.identity.expiresAt)
      return connection.close(CloseCode.tokenExpired, "token expired", now)
    if (connection.overrun || connection.stuckFor(now) > SLOW_MS)
      return connection.close(CloseCode.slowConsumer, "slow consumer", now)
    if (now - connection.heardAt > settings.heartbeatMs + PONG_MS)
      connection.close(CloseCode.noPong, "no pong", now)
  }

  /** The one wheel: everything that depends on time, for all connections, once a second. */
  function tick(): void {
    const now = Date.now()
    for (const connection of connections) check(connection, now)
    const beat = now - heartbeatAt >= settings.heartbeatMs
    if (beat) heartbeat(now)
    // Never in the middle of a batch: what its cursor covers has not all been sent.
    if (head === undefined || inBatch) return
    for (const lane of router.lanes()) {
      if (beat || (lane.unmarked && now - lane.checkpointAt >= CHECKPOINT_MS)) checkpoint(head, lane, now)
    }
  }

  const consumer: FeedConsumer = {
    deliver,
    begin(cursor: Cursor) {
      head = cursor
    },
    reset() {
      head = undefined
      inBatch = false
      atBatchEnd.length = 0
      for (const connection of connections)
        connection.close(CloseCode.cannotContinue, "changes may have been missed", Date.now())
    },
  }
  const wheel = setInterval(tick, 1_000)
  wheel.unref()

  return {
    consumer,
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
    /** Places an authenticated connection. Whatever is committed after the returned cursor reaches it. */
    join(
      connection: Connection,
      channels: ReadonlySet<string>,
      since: string | undefined,
    ): { cursor: string } & Recovery {
      place(connection, channels)
      const cursor = head === undefined ? "" : cursorText(head)
      const recovered = since !== undefined && since === cursor
      if (since !== undefined) metrics.resumes.inc({ result: recovered ? "recovered" : "resync" })
      return {
        cursor,
        recovered,
        replayed: 0,
        reason: recovered ? null : since === undefined ? "no_cursor" : "not_replayed",
      }
    },
    /**
     * Changes a connection's channels between two batches, so that none is seen by half.
     * @param done told the cursor from which on the new channels hold.
     */
    rejoin(
      connection: Connection,
      change: (channels: ReadonlySet<string>) => ReadonlySet<string>,
      done: (cursor: string) => void,
    ): void {
      const act = () => {
        const lane = connection.lane
        if (lane === undefined) return
        if (connection.overrun) return connection.close(CloseCode.slowConsumer, "slow consumer", Date.now())
        const channels = change(lane.subscription.channels)
        place(connection, channels)
        done(head === undefined ? "" : cursorText(head))
        connection.pump()
      }
      if (inBatch) atBatchEnd.push(act)
      else act()
    },
    /** The channels among these that the token does not allow. */
    forbidden(identity: Identity, channels: Iterable<string>): string[] {
      return [...channels].filter((channel) => !mayJoin(channel, identity.user, identity.rights))
    },
    /** What a connection begins with. Its own user channel is joined anyhow, and makes no lane of its own. */
    startChannels: (requested: readonly string[], user: string): ReadonlySet<string> =>
      new Set(requested.length === 0 ? [ALL] : requested.filter((channel) => channel !== `user:${user}`)),
    stats(): HubStats {
      const users = new Map<string, number>()
      const channels = new Map<string, number>()
      const add = (counts: Map<string, number>, name: string, more: number) =>
        counts.set(name, (counts.get(name) ?? 0) + more)
      for (const lane of router.lanes()) {
        for (const [user, count] of lane.users) add(users, user, count)
        for (const channel of lane.subscription.channels) add(channels, channel, lane.members.length)
      }
      return {
        connections: connections.size,
        users: Object.fromEntries(users),
        channels: Object.fromEntries(channels),
        lanes: router.size(),
      }
    },
    /** Tells everybody to come back and waits, for so long at most, until they are gone. */
    async drain(timeoutMs: number): Promise<void> {
      clearInterval(wheel)
      const deadline = Date.now() + timeoutMs
      for (const connection of connections)
        connection.close(CloseCode.drain, "the relay is stopping", Date.now())
      while (connections.size > 0 && Date.now() < deadline) {
        for (const connection of connections) connection.reap(Date.now())
        await sleep(10)
      }
      for (const connection of connections) connection.terminate()
    },
  }
}
export type Hub = ReturnType<typeof createHub>
