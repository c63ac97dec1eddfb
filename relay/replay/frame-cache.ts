/** The frame cache: what returning clients miss of some changes, as frames that are made once for all that miss the same. */

import type { Change } from "../change/change.ts"
import { type Snapshot, visible } from "../change/cursor.ts"
import { bytesOf, chunksOf, framesOf } from "../fanout/frames.ts"
import { concernsEveryUser, type Subscription, usersOf, visibleChangesOf } from "../fanout/visibility.ts"

/** What a client misses of some changes, as chunks of whole frames. */
export interface MissedFrames {
  readonly chunks: readonly Buffer[]
  readonly bytes: number
  /** How many changes they hold. */
  readonly count: number
}

/** Who misses changes: where it stands and what it may see. */
export interface Missing {
  readonly has: Snapshot
  readonly subscription: Subscription
  /** The subscription's key. */
  readonly key: string
  readonly user: string
}

export interface FrameCache {
  /** @param closed whether all changes of the transactions are among these. */
  of(changes: readonly Change[], closed: boolean, missing: Missing): MissedFrames
}

/** Beyond this the least recently used frames are forgotten. Bytes. */
const KEPT_BYTES = 16 * 1_048_576

/** What holds of changes for every client. */
interface Digest {
  readonly id: number
  readonly xids: readonly bigint[]
  /** The users whose own channels occur in them. */
  readonly users: ReadonlySet<string>
  /** Whether they concern every user's own channel: a TRUNCATE names no rows. */
  readonly everybody: boolean
}

export function createFrameCache(): FrameCache {
  const digests = new WeakMap<readonly Change[], Digest>()
  const kept = new Map<string, MissedFrames>()
  let bytes = 0
  let ids = 0

  function digestOf(changes: readonly Change[]): Digest {
    let digest = digests.get(changes)
    if (digest === undefined) {
      digest = digestChanges(changes, ids++)
      digests.set(changes, digest)
    }
    return digest
  }

  function keep(key: string, frames: MissedFrames): void {
    kept.set(key, frames)
    bytes += frames.bytes + 2 * key.length
    for (const [oldest, { bytes: size }] of kept) {
      if (bytes <= KEPT_BYTES) break
      kept.delete(oldest)
      bytes -= size + 2 * oldest.length
    }
  }

  return {
    of(changes, closed, { has, subscription, key: subscriptionKey, user }) {
      const digest = digestOf(changes)
      const own = digest.everybody || digest.users.has(user) ? `user:${user}` : undefined
      const overlaps = digest.xids.some((xid) => visible(has, xid))
      const key = JSON.stringify([digest.id, overlaps ? has.text : "", own, closed, subscriptionKey])
      const known = kept.get(key)
      if (known !== undefined) {
        kept.delete(key)
        kept.set(key, known)
        return known
      }
      const missed = overlaps ? changes.filter((change) => !visible(has, BigInt(change.xid))) : changes
      const frames = framesOf(visibleChangesOf(missed, subscription, own), closed)
      const chunks = chunksOf(frames)
      const made = { chunks, bytes: bytesOf(chunks), count: frames.length }
      if (made.count > 0) keep(key, made)
      return made
    },
  }
}

function digestChanges(changes: readonly Change[], id: number): Digest {
  const xids = new Set<string>()
  const users = new Set<string>()
  let everybody = false
  for (const change of changes) {
    xids.add(change.xid)
    for (const user of usersOf(change)) users.add(user)
    if (change.kind === "table") everybody ||= concernsEveryUser(change)
  }
  return { id, xids: [...xids].map(BigInt), users, everybody }
}
