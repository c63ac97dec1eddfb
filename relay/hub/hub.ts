/** The hub: the way of a batch from the feed into the lanes of live connections, and the memory for returning ones. */

import type { Revocations } from "../access/revocations.ts"
import type { Revocation } from "../change/revocation.ts"
import type { Connection } from "../fanout/connection.ts"
import { flush } from "../fanout/flush.ts"
import { checkpointFrame } from "../fanout/frames.ts"
import { relieve } from "../fanout/pacing.ts"
import { PartFrames } from "../fanout/part-frames.ts"
import { makeRoom } from "../fanout/room.ts"
import type { Router } from "../fanout/router.ts"
import type { BatchPart, FeedConsumer } from "../feed/batch.ts"
import type { Clock } from "../lib/clock.ts"
import { inSlices, TimeSlice } from "../lib/time-slice.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { Position } from "../replay/position.ts"
import type { ReplayBuffer } from "../replay/replay-buffer.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { agesOf } from "./age.ts"
import type { DerivedBoard } from "./derived-board.ts"
import type { Live } from "./live.ts"
import { CHECKPOINT_MS } from "./sweep.ts"

export interface HubDeps {
  /** All that are open. */
  connections: ReadonlySet<Connection>
  /** Kept up to date by what the hub consumes, as are the buffer and the revocations. */
  position: Position
  buffer: ReplayBuffer
  revocations: Revocations
  router: Router
  live: Pick<Live, "release">
  derivedBoard: DerivedBoard
  laneBufferBytes: number
  /** What may wait in all lanes together. */
  allLanesBytes: number
  metrics: Metrics
  clock: Clock
}

export function createHub(deps: HubDeps): FeedConsumer {
  const { connections, position, buffer, revocations, router, live, derivedBoard, metrics } = deps
  const { laneBufferBytes, allLanesBytes, clock } = deps

  /** Before the changes that come with them. Who is admitted meanwhile is judged by them already. */
  async function enforce(news: readonly Revocation[]): Promise<void> {
    revocations.learn(news)
    await inSlices(connections, (connection) => {
      if (connection.identity !== undefined && revocations.refuses(connection.identity))
        connection.close(CloseCode.forbidden, "revoked")
    })
  }

  /** Puts a part into the lanes that see something of it. @returns those that have something to write, and what to count. */
  async function fill(part: BatchPart, slice: TimeSlice) {
    const { changes, cursor, first, final } = part
    const now = clock.now()
    const piece = { batch: position.batch, changes }
    const frames = new PartFrames(final, slice)
    const { touched, unseen } = await router.route(changes, slice)
    let deliveries = 0
    const mark = [checkpointFrame(cursor)]
    // A batch in pages ends with a checkpoint in any case: it closes the transactions whose last change was not known.
    const lastPage = final && !first
    for (const lane of lastPage ? router.lanes() : touched) {
      const due = lastPage || (final && now - lane.checkpointAt >= CHECKPOINT_MS)
      if (due) lane.checkpointAt = now
      lane.unmarked = !due
      deliveries += lane.visibleChanges.length * lane.members.length
      touched.add(lane)
      lane.append(await lane.takeEntry(piece, due ? mark : [], frames), laneBufferBytes)
      if (router.held() > allLanesBytes) {
        await flush(touched, slice)
        makeRoom(router, allLanesBytes)
      }
    }
    return { touched, unseen, deliveries }
  }

  return {
    hasClients: () => connections.size > 0,
    async deliver(part) {
      const began = clock.now()
      if (part.revocations.length > 0) await enforce(part.revocations)
      if (part.first) position.beginBatch(part.cursor)
      buffer.append(part)
      const slice = new TimeSlice()
      const { touched, unseen, deliveries } = await fill(part, slice)
      await flush(touched, slice)
      metrics.unrouted.inc(unseen)
      metrics.deliveries.inc(deliveries)
      if (touched.size > 0) for (const age of agesOf(part.changes, Date.now())) metrics.send.observe(age)
      if (part.final) return position.endBatch()
      position.advance()
      await relieve(touched, laneBufferBytes / 2, began, clock)
    },
    showDerived: derivedBoard.show,
    adopt(lineage, lineages) {
      position.adopt(lineage, lineages)
    },
    lost() {
      if (!position.inBatch) return
      // What was sent of the batch comes again with the next; no checkpoint may say that all of it was sent.
      buffer.abandon(position.before)
      position.abandonBatch()
    },
    begin(cursor, all) {
      revocations.begin(all)
      buffer.begin(cursor.snapshot)
      position.begin(cursor)
    },
    reset() {
      position.reset()
      const cut = [...connections]
      // At once, for none of them may see what comes after; the closing takes its time.
      for (const connection of cut) live.release(connection)
      void inSlices(cut, (connection) =>
        connection.close(CloseCode.cannotContinue, "changes may have been missed"),
      )
    },
  }
}
