/** The replay buffer: the recent batches, from which a client that was away for a short time is served. Pure. */

import type { Change } from "../change/change.ts"
import { type Cursor, contains, type Snapshot } from "../change/cursor.ts"
import type { BatchPart } from "../feed/batch.ts"

/** A part of a batch, as long as it is remembered. */
export interface BufferedPart {
  readonly changes: readonly Change[]
  /** The position after the whole batch. */
  readonly cursor: Cursor
  readonly final: boolean
  readonly batch: number
  readonly bytes: number
}

export interface ReplayBuffer {
  /** Forgets everything and remembers all that follows the position. */
  begin(snapshot: Snapshot): void
  append(part: Omit<BatchPart, "revocations">): void
  /** Forgets the batch in progress, whose changes come again. @param cursor the position before it. */
  abandon(cursor: Cursor | undefined): void
  /** Remembers older changes that were read from the log. They may overlap with what is known, but leave no gap. */
  prepend(since: Snapshot, pages: readonly (readonly Change[])[], until: Cursor): void
  /** Whether everything since the position is here. */
  covers(snapshot: Snapshot): boolean
  /** The index of the oldest part, and the one after the last. An index never changes its meaning. */
  first(): number
  end(): number
  /** A part; undefined at the end, null if it is forgotten. */
  at(index: number): BufferedPart | null | undefined
  /** How much more it can remember without forgetting. Bytes, as `sizeOf` counts. */
  room(): number
}

/** What a change occupies once it was sent: its text, as a string and in one or two frames. Bytes. */
const CHANGE_BYTES = 1_000
const BYTES_PER_CHARACTER = 3

/** Makes an empty buffer. It covers nothing before `begin`. */
export function createReplayBuffer(limitBytes: number): ReplayBuffer {
  let parts: BufferedPart[] = []
  let base = 0
  let bytes = 0
  let start: Snapshot | undefined
  let batch = 0
  let olderBatch = 0
  /** The batch in progress is larger than the buffer: nothing of it is kept. */
  let skipping = false

  function dropOldestBatch(): void {
    const oldest = parts[0] as BufferedPart
    const next = parts.findIndex((part) => part.batch !== oldest.batch)
    const dropped = parts.splice(0, next === -1 ? parts.length : next)
    for (const part of dropped) bytes -= part.bytes
    base += dropped.length
    start = oldest.cursor.snapshot
    skipping = oldest.batch === batch
  }

  return {
    begin(snapshot) {
      base += parts.length
      parts = []
      bytes = 0
      start = snapshot
      skipping = false
    },
    append({ changes, cursor, first, final }) {
      if (first) {
        batch++
        skipping = false
      }
      if (skipping) return
      // Where nothing was written, an older position is as good as the new one.
      if (changes.length === 0 && parts.at(-1)?.batch !== batch) return
      const size = sizeOf(changes)
      parts.push({ changes, cursor, final, batch, bytes: size })
      bytes += size
      while (bytes > limitBytes) dropOldestBatch()
    },
    abandon(cursor) {
      if (cursor === undefined) return
      skipping = true
      // Their indices stay taken.
      parts = parts.map((part) => {
        if (part.batch !== batch) return part
        bytes -= part.bytes
        return { ...part, changes: [], cursor, final: true, bytes: 0 }
      })
    },
    prepend(since, pages, until) {
      if (start === undefined || !contains(until.snapshot, start) || contains(since, start)) return
      olderBatch--
      const older = pages.map((changes, i) => ({
        changes,
        cursor: until,
        final: i === pages.length - 1,
        batch: olderBatch,
        bytes: sizeOf(changes),
      }))
      const size = older.reduce((sum, part) => sum + part.bytes, 0)
      if (bytes + size > limitBytes) return
      // New indices for all: one that is forgotten must not come to mean something else.
      base += parts.length + 1
      parts = [...older, ...parts]
      bytes += size
      start = since
    },
    covers: (snapshot) => start !== undefined && contains(snapshot, start),
    first: () => base,
    end: () => base + parts.length,
    at: (index) => (index < base ? null : parts[index - base]),
    room: () => limitBytes - bytes,
  }
}

/** About what changes occupy in memory. Bytes. */
export const sizeOf = (changes: readonly Change[]): number =>
  changes.reduce((sum, change) => sum + bytesOf(change), 0)

function bytesOf(change: Change): number {
  let characters = 0
  if (change.kind === "row") characters = (change.before?.text.length ?? 0) + (change.after?.text.length ?? 0)
  else if (change.kind === "message") characters = change.payload.length
  return CHANGE_BYTES + BYTES_PER_CHARACTER * characters
}
