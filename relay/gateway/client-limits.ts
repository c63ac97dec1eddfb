/** The limits on clients that are connected: how many of a user, how many channels, how fast they may send. */

import type { Settings } from "../config.ts"
import type { Connection } from "../fanout/connection.ts"
import { Rate, TokenBuckets } from "../lib/token-bucket.ts"
import { CloseCode } from "../protocol/close-code.ts"
import { PING_FRAME } from "../protocol/frame.ts"
import type { Limit } from "../telemetry/metrics.ts"
import type { ReachedLimits } from "./reached-limits.ts"

export interface ClientLimitsDeps {
  settings: Readonly<
    Pick<
      Settings,
      | "MAX_CONNECTIONS_PER_USER"
      | "USER_LIMIT"
      | "MAX_FRAME_RATE"
      | "MAX_FRAME_RATE_PER_USER"
      | "MAX_CHANNELS"
    >
  >
  reached: ReachedLimits
  clock(): number
}

/** One that has sent nothing since it was asked this long ago gives its place to a newer one. Milliseconds. */
const ANSWER_MS = 10_000

export function createClientLimits({ settings, reached, clock }: ClientLimitsDeps) {
  /** The connections of each user, the oldest first. */
  const connectionsOf = new Map<string, Set<Connection>>()
  const rate = new Rate(settings.MAX_FRAME_RATE)
  const bucketsOf = new TokenBuckets(new Rate(settings.MAX_FRAME_RATE_PER_USER))

  /**
   * A connection whose line is dead is counted until its heartbeats stay without an answer, and whoever lost it is back
   * before that. So all are asked at once, and one that is silent by the next attempt gives way. One that came in since
   * then has not been asked.
   * @returns whether there is room now.
   */
  function displaceSilent(theirs: ReadonlySet<Connection>): boolean {
    const now = clock()
    const due = [...theirs].filter(({ askedAt }) => now - askedAt >= ANSWER_MS)
    for (const connection of due) {
      if (connection.lastHeardAt >= connection.askedAt) continue
      connection.close(CloseCode.noPong, "no pong")
      return true
    }
    for (const connection of due) {
      connection.askedAt = now
      connection.push([PING_FRAME])
    }
    return false
  }

  function exceeded(connection: Connection, per: "user" | "connection"): Limit | undefined {
    const now = clock()
    const wholeAt = rate.take(connection.framesWholeAt, now)
    if (wholeAt === undefined) return "frame_rate"
    connection.framesWholeAt = wholeAt
    const user = connection.user || connection.claimant
    const ofUser = per === "user" && user !== ""
    return ofUser && !bucketsOf.take(user, now) ? "frame_rate_per_user" : undefined
  }

  return {
    /**
     * Counts an authenticated connection of its user; the user's oldest may have to close for it.
     * @returns false if there is no room for it.
     */
    addConnection(connection: Connection): boolean {
      const theirs = connectionsOf.get(connection.user) ?? new Set()
      const full = settings.MAX_CONNECTIONS_PER_USER !== 0 && theirs.size >= settings.MAX_CONNECTIONS_PER_USER
      if (full && !displaceSilent(theirs)) {
        reached.record("connections_per_user")
        if (settings.USER_LIMIT === "refuse") return false
        const [oldest] = theirs
        oldest?.close(CloseCode.connectionLimit, "too many connections: a newer one took the place")
      }
      connectionsOf.set(connection.user, theirs.add(connection))
      return true
    },
    /** Idempotent. */
    removeConnection(connection: Connection): void {
      const theirs = connectionsOf.get(connection.user)
      if (theirs?.delete(connection) && theirs.size === 0) connectionsOf.delete(connection.user)
    },
    /** Whether a connection may have so many channels. */
    fitsChannels: (channels: number): boolean => channels <= settings.MAX_CHANNELS,
    /** Whether a connection may have so many channels. One that may not is closed. */
    allowsChannels(connection: Connection, channels: number): boolean {
      if (channels <= settings.MAX_CHANNELS) return true
      reached.record("channels")
      connection.close(CloseCode.tooManyChannels, "too many channels")
      return false
    },
    /**
     * Counts a frame of a client, for its connection or for its user too.
     * @returns false if it is one too many.
     */
    takeFrame(connection: Connection, per: "user" | "connection"): boolean {
      const limit = exceeded(connection, per)
      if (limit !== undefined) reached.record(limit)
      return limit === undefined
    },
  }
}
