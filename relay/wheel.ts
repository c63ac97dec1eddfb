/** The one wheel: everything that depends on time, for all connections, once a second. No connection has a timer. */

import type { Connection } from "./connection.ts"
import { announce } from "./fanout.ts"
import { checkpointFrame } from "./frames.ts"
import { CloseCode, encodeMessage } from "./protocol.ts"
import type { Position, Replays } from "./replay.ts"
import type { Router } from "./router.ts"
import { frameText, PING_FRAME } from "./wire.ts"

export interface WheelSettings {
  laneBufferBytes: number
  heartbeatMs: number
  authTimeoutMs: number
}

export interface WheelDeps {
  settings: WheelSettings
  position(): Position
  connections: Iterable<Connection>
  router: Router
  replays: Replays
}

/** A lane in which changes pass has a checkpoint as often as this. Milliseconds. */
export const CHECKPOINT_MS = 1_000
const TURN_MS = 1_000
/** A socket that takes nothing for this long, although something waits, is a slow consumer. Milliseconds. */
const SLOW_MS = 10_000
/** Whoever was not heard for a heartbeat and this long is taken for dead. Milliseconds. */
const PONG_MS = 10_000

/** Starts it; it keeps no process alive. */
export function startWheel({ settings, position, connections, router, replays }: WheelDeps): {
  stop(): void
} {
  let heartbeatAt = performance.now()

  function check(connection: Connection, now: number): void {
    if (connection.closingSince !== 0) return connection.reap()
    if (connection.identity === undefined) {
      if (now - connection.connectedAt > settings.authTimeoutMs)
        connection.close(CloseCode.notAuthenticated, "not authenticated in time")
      return
    }
    if (Date.now() > connection.identity.expiresAt)
      return connection.close(CloseCode.tokenExpired, "token expired")
    if (connection.overrun || connection.stuckFor(now) > SLOW_MS)
      return connection.close(CloseCode.slowConsumer, "slow consumer")
    if (now - connection.heardAt > settings.heartbeatMs + PONG_MS)
      connection.close(CloseCode.noPong, "no pong")
  }

  function heartbeat(): void {
    const frames = [PING_FRAME, frameText(encodeMessage({ type: "ping" }))]
    announce(router.lanes(), frames, settings.laneBufferBytes)
    for (const connection of replays.connections()) connection.push(frames)
  }

  function turn(): void {
    const now = performance.now()
    for (const connection of connections) check(connection, now)
    const beat = now - heartbeatAt >= settings.heartbeatMs
    if (beat) {
      heartbeatAt = now
      heartbeat()
    }
    const { head, inBatch } = position()
    // Never in the middle of a batch: what its cursor covers has not all been sent.
    if (head === undefined || inBatch) return
    for (const lane of router.lanes()) {
      if (!beat && !(lane.unmarked && now - lane.checkpointAt >= CHECKPOINT_MS)) continue
      lane.checkpointAt = now
      lane.unmarked = false
      announce([lane], [checkpointFrame(head)], settings.laneBufferBytes)
    }
  }

  const timer = setInterval(turn, TURN_MS)
  timer.unref()
  return { stop: () => clearInterval(timer) }
}
