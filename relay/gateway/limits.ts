/** The limits on clients: how many may be here, how fast they may come, and how fast they may talk. In this process. */

import type { IncomingMessage } from "node:http"
import type { Settings } from "../config.ts"
import type { Connection } from "../fanout/connection.ts"
import { clientOf, speaksInVain, type Trust } from "../lib/client-address.ts"
import { Rate, TokenBuckets } from "../lib/token-bucket.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { Counts } from "../telemetry/counts.ts"
import type { Log } from "../telemetry/log.ts"
import type { Limit, Metrics } from "../telemetry/metrics.ts"

/** 0 is no limit, but for channels. */
export type LimitSettings = Pick<
  Settings,
  | "MAX_CONNECTIONS"
  | "MAX_CONNECTIONS_PER_ADDRESS"
  | "MAX_CONNECTIONS_PER_USER"
  | "USER_LIMIT"
  | "MAX_UPGRADE_RATE"
  | "MAX_UPGRADE_RATE_PER_ADDRESS"
  | "MAX_FRAME_RATE"
  | "MAX_FRAME_RATE_PER_USER"
  | "MAX_CHANNELS"
>

export interface LimitsDeps {
  settings: Readonly<LimitSettings>
  trust: Trust
  log: Log
  metrics: Metrics
  /** The time, in milliseconds, of a clock that is never set. */
  clock?: (() => number) | undefined
}

/** What becomes of an upgrade: it may go on, on behalf of an address, or is to come back later. */
export type Entry =
  | { admitted: true; address: string }
  | { admitted: false; limit: Limit; status: 429 | 503; retrySeconds: number }

export type Limits = ReturnType<typeof createLimits>

/** When to come back where nobody knows when somebody leaves. */
const RETRY_SECONDS = 10
/** A limit that is reached all the time is told as often as this. Milliseconds. */
const TELL_MS = 60_000

export function createLimits({ settings, trust, log, metrics, clock = () => performance.now() }: LimitsDeps) {
  let connections = 0
  /** How many connections each address has. */
  const addresses = new Map<string, number>()
  /** The connections of each user, the oldest first. */
  const users = new Map<string, Set<Connection>>()
  const upgrades = new Rate(settings.MAX_UPGRADE_RATE)
  let upgradesWholeAt = 0
  const upgradesOf = new TokenBuckets(new Rate(settings.MAX_UPGRADE_RATE_PER_ADDRESS))
  const frames = new Rate(settings.MAX_FRAME_RATE)
  const framesOf = new TokenBuckets(new Rate(settings.MAX_FRAME_RATE_PER_USER))
  const reached = new Map<Limit, { times: number; toldAt: number }>()

  /** Counts that a limit was reached, and tells operations. @param request what reached a limit by address. */
  function reach(limit: Limit, request?: IncomingMessage): void {
    metrics.limits.inc({ limit })
    const before = reached.get(limit) ?? { times: 0, toldAt: Number.NEGATIVE_INFINITY }
    const times = before.times + 1
    const tell = clock() - before.toldAt >= TELL_MS
    reached.set(limit, { times, toldAt: tell ? clock() : before.toldAt })
    if (!tell) return
    const told = { event: "limit_reached", limit, times }
    const setting = `MAX_${limit.toUpperCase()}`
    if (request === undefined || !speaksInVain(request, trust))
      return log.warn(told, `${setting} has been reached`)
    log.warn(
      { ...told, proxy: request.socket.remoteAddress },
      `${setting} has been reached by an address that sends X-Forwarded-For and is not in TRUST_PROXY: if it is a proxy, all its clients count as one`,
    )
  }

  function refuse(limit: Limit, status: 429 | 503, retrySeconds: number, request?: IncomingMessage): Entry {
    reach(limit, request)
    return { admitted: false, limit, status, retrySeconds }
  }

  function takeFrame(connection: Connection, alone: boolean): Limit | undefined {
    const now = clock()
    const wholeAt = frames.take(connection.framesWholeAt, now)
    if (wholeAt === undefined) return "frame_rate"
    connection.framesWholeAt = wholeAt
    const counts = !alone && connection.identity !== undefined
    return counts && !framesOf.take(connection.user, now) ? "frame_rate_per_user" : undefined
  }

  const addressOf = (request: IncomingMessage): string => clientOf(request, trust)
  const seconds = (ms: number) => Math.max(1, Math.ceil(ms / 1_000))

  return {
    /** Judges an upgrade. One that is refused for its address takes nothing from the others. */
    admit(request: IncomingMessage): Entry {
      const address = addressOf(request)
      const here = addresses.get(address) ?? 0
      if (here >= bound(settings.MAX_CONNECTIONS_PER_ADDRESS))
        return refuse("connections_per_address", 429, RETRY_SECONDS, request)
      if (connections >= bound(settings.MAX_CONNECTIONS)) return refuse("connections", 503, RETRY_SECONDS)
      const now = clock()
      const waitMs = upgradesOf.waitMs(address, now)
      if (waitMs > 0) return refuse("upgrade_rate_per_address", 429, seconds(waitMs), request)
      const wholeAt = upgrades.take(upgradesWholeAt, now)
      if (wholeAt === undefined)
        return refuse("upgrade_rate", 503, seconds(upgrades.waitMs(upgradesWholeAt, now)))
      upgradesWholeAt = wholeAt
      upgradesOf.take(address, now)
      return { admitted: true, address }
    },
    addressOf,
    /** Counts a socket that was upgraded; `leave` once it is gone. */
    enter(address: string): void {
      connections++
      addresses.set(address, (addresses.get(address) ?? 0) + 1)
    },
    leave(address: string): void {
      connections--
      const left = (addresses.get(address) ?? 1) - 1
      if (left > 0) addresses.set(address, left)
      else addresses.delete(address)
    },
    /**
     * Counts an authenticated connection of its user; the user's oldest may have to go for it.
     * @returns false if there is no room for it.
     */
    join(connection: Connection): boolean {
      const theirs = users.get(connection.user) ?? new Set()
      if (theirs.size >= bound(settings.MAX_CONNECTIONS_PER_USER)) {
        reach("connections_per_user")
        if (settings.USER_LIMIT === "refuse") return false
        const [oldest] = theirs
        oldest?.close(CloseCode.connectionLimit, "too many connections: a newer one took the place")
      }
      users.set(connection.user, theirs.add(connection))
      return true
    },
    /** The connection is none of its user's any more. Idempotent. */
    part(connection: Connection): void {
      const theirs = users.get(connection.user)
      if (theirs?.delete(connection) && theirs.size === 0) users.delete(connection.user)
    },
    /** Whether a connection may have so many channels. One that may not is closed. */
    allowsChannels(connection: Connection, channels: number): boolean {
      if (channels <= settings.MAX_CHANNELS) return true
      reach("channels")
      connection.close(CloseCode.tooManyChannels, "too many channels")
      return false
    },
    /**
     * Counts a frame of a client.
     * @param alone whether it counts for the connection alone and not for its user.
     * @returns false if that is one too many.
     */
    hear(connection: Connection, alone: boolean): boolean {
      const exceeded = takeFrame(connection, alone)
      if (exceeded !== undefined) reach(exceeded)
      return exceeded === undefined
    },
    reach: (limit: Limit): void => reach(limit),
    /** How often each limit was reached. */
    reached: (): Counts => Object.fromEntries([...reached].map(([limit, { times }]) => [limit, times])),
    /** How many addresses have connections. */
    addresses: (): number => addresses.size,
  }
}

const bound = (limit: number): number => (limit === 0 ? Number.POSITIVE_INFINITY : limit)
