/** The sweep: everything that depends on time, for all connections, once a second. No connection has a timer. */

import type { Cursor } from "../change/cursor.ts"
import type { Connection } from "../fanout/connection.ts"
import { announce } from "../fanout/flush.ts"
import { checkpointFrame } from "../fanout/frames.ts"
import type { Lane } from "../fanout/lane.ts"
import type { Router } from "../fanout/router.ts"
import { inSlices } from "../lib/time-slice.ts"
import { createTimerLag } from "../lib/timer-lag.ts"
import { CloseCode } from "../protocol/close-code.ts"
import { encodeMessage } from "../protocol/encode.ts"
import { frameText, PING_FRAME } from "../protocol/frame.ts"
import type { Position } from "../replay/position.ts"
import type { Replays } from "../replay/replay.ts"

export interface SweepSettings {
  laneBufferBytes: number
  heartbeatMs: number
  authTimeoutMs: number
  /** The age at which a connection is closed at the latest. */
  maxAgeMs?: number | undefined
  /** How long a socket may take nothing although something waits; 10,000 by default. */
  slowMs?: number | undefined
}

export interface SweepDeps {
  settings: SweepSettings
  position: Pick<Position, "head" | "inBatch">
  connections: Iterable<Connection>
  router: Pick<Router, "lanes">
  replays: Pick<Replays, "connections">
}

/** A lane in which changes pass has a checkpoint as often as this. Milliseconds. */
export const CHECKPOINT_MS = 1_000
const TICK_MS = 1_000
/** A socket that takes nothing for this long, although something waits, is a slow consumer. Milliseconds. */
const SLOW_MS = 10_000
/** A client that is silent for a heartbeat and this long is taken for dead. Milliseconds. */
const PONG_MS = 10_000
/** Connections that came together must not be closed together. */
const AGE_SPREAD = 0.2

export interface Sweep {
  stop(): void
}

/** Starts it; it keeps no process alive. */
export function startSweep({ settings, position, connections, router, replays }: SweepDeps): Sweep {
  let heartbeatAt = performance.now()
  let ticking = false
  const timerLag = createTimerLag(TICK_MS)
  /** How late ticks were that no connection was excused for yet. Milliseconds. */
  let late = 0

  async function checkAll(): Promise<void> {
    const excused = late
    late = 0
    await inSlices(connections, (connection) => {
      connection.excuse(excused)
      check(connection, performance.now(), settings)
    })
  }

  async function heartbeat(): Promise<void> {
    const frames = [PING_FRAME, frameText(encodeMessage({ type: "ping" }))]
    for (const lane of router.lanes()) {
      lane.unmarked = true
      lane.checkpointAt = Number.NEGATIVE_INFINITY
    }
    await announce(router.lanes(), frames, settings.laneBufferBytes)
    await inSlices(replays.connections(), (connection) => connection.push(frames))
  }

  /** The lanes that are owed a checkpoint, as long as the feed stands there. */
  function* unmarked(head: Cursor): Generator<Lane> {
    for (const lane of router.lanes()) {
      const now = performance.now()
      if (!lane.unmarked || now - lane.checkpointAt < CHECKPOINT_MS) continue
      // Never in the middle of a batch: what its cursor covers has not all been sent.
      if (position.inBatch || position.head !== head) return
      lane.checkpointAt = now
      lane.unmarked = false
      yield lane
    }
  }

  async function tick(): Promise<void> {
    await checkAll()
    // What was kept for who has left need not be kept until its lane is next used.
    await inSlices(router.lanes(), (lane) => {
      if (lane.bytes > 0) lane.trim()
    })
    if (performance.now() - heartbeatAt >= settings.heartbeatMs) {
      heartbeatAt = performance.now()
      await heartbeat()
    }
    const { head } = position
    if (head !== undefined) await announce(unmarked(head), [checkpointFrame(head)], settings.laneBufferBytes)
  }

  const timer = setInterval(async () => {
    late += timerLag()
    if (ticking) return
    ticking = true
    await tick()
    ticking = false
  }, TICK_MS)
  timer.unref()
  return { stop: () => clearInterval(timer) }
}

/** Closes a connection whose time is over. */
function check(connection: Connection, now: number, settings: SweepSettings): void {
  const { slowMs = SLOW_MS, maxAgeMs = Number.POSITIVE_INFINITY } = settings
  if (connection.closing) return
  if (connection.identity === undefined) {
    if (now - connection.connectedAt > settings.authTimeoutMs)
      connection.close(CloseCode.notAuthenticated, "not authenticated in time")
    return
  }
  if (Date.now() > connection.identity.expiresAt)
    return connection.close(CloseCode.tokenExpired, "token expired")
  if (connection.overrun || connection.stuckFor(now) > slowMs)
    return connection.close(CloseCode.slowConsumer, "slow consumer")
  if (now - connection.lastHeardAt > settings.heartbeatMs + PONG_MS)
    return connection.close(CloseCode.noPong, "no pong")
  if (now - connection.connectedAt > maxAgeMs * (1 - AGE_SPREAD * connection.chance))
    connection.close(CloseCode.drain, "time to connect anew")
}
