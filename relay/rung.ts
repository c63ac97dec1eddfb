/**
 * Which transactions rang. A bell names its transaction and comes on another connection than the read that brings the
 * changes, a little before or after it. So both are kept for a while, each until the other comes.
 */

export interface Rung {
  /** A bell of this transaction was heard. */
  heard(xid: string): void
  /** A read brought these transactions. @returns how many of earlier reads did not ring, as is certain by now. */
  read(xids: Iterable<string>): number
}

interface Generation {
  /** Heard, and not read yet. */
  heard: Set<string>
  /** Read, and not heard yet. */
  unheard: Set<string>
}

/** How much later than the read a bell may come, on a busy machine. Milliseconds. */
const SETTLE_MS = 1_000
/** Anybody may ring with xids that no read will bring. */
const MAX_HEARD = 20_000

const generation = (): Generation => ({ heard: new Set(), unheard: new Set() })

export function createRung(now: () => number): Rung {
  let older = generation()
  let newer = generation()
  let turnedAt = now()
  return {
    heard(xid) {
      if (older.unheard.delete(xid) || newer.unheard.delete(xid)) return
      if (newer.heard.size < MAX_HEARD) newer.heard.add(xid)
    },
    read(xids) {
      for (const xid of xids) if (!older.heard.delete(xid) && !newer.heard.delete(xid)) newer.unheard.add(xid)
      // By reads alone, since a bell heard in the middle of a long one belongs to the next.
      if (now() - turnedAt < SETTLE_MS) return 0
      const skipped = older.unheard.size
      older = newer
      newer = generation()
      turnedAt = now()
      return skipped
    },
  }
}
