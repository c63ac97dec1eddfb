/** A hub with real neighbours, but for what reads the log: a test feeds it part by part. */

import assert from "node:assert/strict"
import type { Identity } from "../../relay/access/auth.ts"
import { createRevocations } from "../../relay/access/revocations.ts"
import type { Change } from "../../relay/change/change.ts"
import { type Cursor, parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { Connection } from "../../relay/fanout/connection.ts"
import { createRouter } from "../../relay/fanout/router.ts"
import type { BatchPart } from "../../relay/feed/batch.ts"
import type { Source } from "../../relay/feed/source.ts"
import { createDerivedBoard } from "../../relay/hub/derived-board.ts"
import { createHub } from "../../relay/hub/hub.ts"
import { createLive } from "../../relay/hub/live.ts"
import { createMembership } from "../../relay/hub/membership.ts"
import type { Clock } from "../../relay/lib/clock.ts"
import type { LogReads } from "../../relay/replay/log-reads.ts"
import { Position } from "../../relay/replay/position.ts"
import { createReplays } from "../../relay/replay/replay.ts"
import { createReplayBuffer, type ReplayBuffer } from "../../relay/replay/replay-buffer.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { createTestClock } from "./clock.ts"
import { quietLog } from "./neighbours.ts"
import { FakeWire } from "./wire.ts"

/** A position of the lineage `l`. @param text of a snapshot, or the xid before which everything is visible. */
export function cursorAt(text: string | number): Cursor {
  const whole = typeof text === "number" ? `${text}:${text}:` : text
  return { lineage: "l", snapshot: parseSnapshot(whole) ?? assert.fail(whole) }
}

export const snapshotAt = (text: string | number): Snapshot => cursorAt(text).snapshot

/** A message of a transaction, which says its number. */
export const message = (xid: number, channel = "committee:1", payload: unknown = xid): Change => ({
  kind: "message",
  op: "message",
  id: String(xid),
  xid: String(xid),
  at: "2026-11-03 20:15:00+00",
  channel,
  payload: JSON.stringify(payload),
})

export const identity = (more: Partial<Identity> = {}): Identity => ({
  user: "7",
  admin: false,
  rights: { committees: null, elections: null, channels: null, roles: new Set<string>() },
  expiresAt: Number.POSITIVE_INFINITY,
  ...more,
})

export interface HubOptions {
  buffer?: ReplayBuffer
  source?: Pick<Source, "refresh">
  logReads?: LogReads
  maxLanes?: number
  allLanesBytes?: number
  clock?: Clock
}

/** One whose feed stands at 10, and for which time stands still unless a test has it pass. */
export function buildHub({
  buffer = createReplayBuffer(1_000_000),
  source = { refresh: async () => true },
  logReads = { read: async () => assert.fail("all is in memory"), stop() {} },
  maxLanes = 1_000,
  allLanesBytes = 100_000_000,
  clock = createTestClock(),
}: HubOptions = {}) {
  const metrics = createMetrics()
  const connections = new Set<Connection>()
  const revocations = createRevocations()
  const router = createRouter()
  const derivedBoard = createDerivedBoard(router)
  const position = new Position()
  const live = createLive({ router, derivedBoard, position })
  const shared = { log: quietLog, metrics, revocations, connections, router, position, buffer, live, clock }
  const hub = createHub({ ...shared, derivedBoard, laneBufferBytes: 1_000_000, allLanesBytes })
  const replays = createReplays({ ...shared, logReads, source })
  const membership = createMembership({ ...shared, replays, maxLanes })
  hub.adopt("l", new Set(["l"]))
  hub.begin(cursorAt(10), [])

  /** An authenticated connection, which has joined nothing. */
  function connect(who: Identity = identity(), wire = new FakeWire()) {
    const codes: number[] = []
    const connection = new Connection({
      wire,
      address: "127.0.0.1",
      onClosing(closing, code) {
        membership.release(closing)
        codes.push(code)
      },
    })
    connection.identity = who
    membership.track(connection)
    return { connection, wire, codes }
  }

  /** The next part of a batch up to a transaction. */
  const deliver = (xmax: number, part: Partial<BatchPart> = {}): Promise<void> =>
    hub.deliver({
      changes: [],
      revocations: [],
      cursor: cursorAt(xmax),
      first: true,
      final: true,
      ...part,
    })

  return { ...shared, hub, replays, membership, connect, deliver }
}
