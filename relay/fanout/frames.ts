/** Changes as frames: made once for everybody who sees a change in the same way, and joined into few buffers. */

import type { Change } from "../change/change.ts"
import { type Cursor, cursorText } from "../change/cursor.ts"
import type { TimeSlice } from "../lib/time-slice.ts"
import { encodeChange, encodeMessage } from "../protocol/encode.ts"
import { frameText } from "../protocol/frame.ts"
import type { VisibleChange } from "./visibility.ts"

/** Chunks end at this size, so that a connection is never handed much more than it may hold. Bytes. */
const CHUNK_BYTES = 65_536

/** Kept as long as the change: in the batch being sent, and in the replay buffer. */
const made = new WeakMap<Change, Partial<Record<string, Buffer>>>()

/** @param last whether no further change of its transaction follows. */
export function frameOf({ change, as, mask }: VisibleChange, last: boolean): Buffer {
  let variants = made.get(change)
  if (variants === undefined) {
    variants = {}
    made.set(change, variants)
  }
  const key = (last ? `${as}!` : as) + mask.key
  const frame = variants[key] ?? frameText(encodeChange(change, as, mask, last))
  variants[key] = frame
  return frame
}

/** The frames from last to first, since the last change of a transaction is found from the end. */
function* fromTheEnd(visibleChanges: readonly VisibleChange[], closed: boolean): Generator<Buffer> {
  const seen = new Set<string>()
  for (let i = visibleChanges.length - 1; i >= 0; i--) {
    const visibleChange = visibleChanges[i] as VisibleChange
    yield frameOf(visibleChange, closed && !seen.has(visibleChange.change.xid))
    seen.add(visibleChange.change.xid)
  }
}

/**
 * The frames in order.
 * @param closed whether these are all changes of their transactions; otherwise none is known to be the last.
 */
export const framesOf = (visibleChanges: readonly VisibleChange[], closed: boolean): Buffer[] =>
  [...fromTheEnd(visibleChanges, closed)].reverse()

/** The same in slices. */
export async function makeFrames(
  visibleChanges: readonly VisibleChange[],
  closed: boolean,
  slice: TimeSlice,
): Promise<Buffer[]> {
  const frames: Buffer[] = []
  for (const frame of fromTheEnd(visibleChanges, closed)) {
    frames.push(frame)
    if (slice.over) await slice.turn()
  }
  return frames.reverse()
}

/** Everything up to the cursor was sent. @param replayed ends a replay of so many changes. */
export const checkpointFrame = (cursor: Cursor, replayed?: number): Buffer =>
  frameText(
    encodeMessage({
      type: "checkpoint",
      cursor: cursorText(cursor),
      ...(replayed === undefined ? {} : { replayed }),
    }),
  )

export const bytesOf = (chunks: readonly Buffer[]): number =>
  chunks.reduce((sum, chunk) => sum + chunk.length, 0)

/** Joins frames to chunks. */
export function chunksOf(frames: readonly Buffer[]): Buffer[] {
  const result: Buffer[] = []
  let open: Buffer[] = []
  let size = 0
  const close = () => {
    if (size > 0) result.push(open.length === 1 ? (open[0] as Buffer) : Buffer.concat(open, size))
    open = []
    size = 0
  }
  for (const frame of frames) {
    if (size + frame.length > CHUNK_BYTES) close()
    open.push(frame)
    size += frame.length
  }
  close()
  return result
}
