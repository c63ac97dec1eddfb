/** The limits on upgrades: how many sockets there may be, in all and of an address, and how fast they may come. */

import type { IncomingMessage } from "node:http"
import type { Settings } from "../config.ts"
import { clientOf, type Trust } from "../lib/client-address.ts"
import { Rate, TokenBuckets } from "../lib/token-bucket.ts"
import type { Limit } from "../telemetry/metrics.ts"
import type { ReachedLimits } from "./reached-limits.ts"

export interface UpgradeLimitsDeps {
  settings: Readonly<
    Pick<
      Settings,
      "MAX_CONNECTIONS" | "MAX_CONNECTIONS_PER_ADDRESS" | "MAX_UPGRADE_RATE" | "MAX_UPGRADE_RATE_PER_ADDRESS"
    >
  >
  trust: Trust
  reached: ReachedLimits
  clock(): number
}

/** Whether an upgrade may go on, on behalf of an address, or when to try again. */
export type UpgradeAllowance =
  | { allowed: true; address: string }
  | { allowed: false; limit: Limit; status: 429 | 503; retrySeconds: number }

/** When to try again if somebody must leave first: nobody knows when that is. */
const RETRY_SECONDS = 10

export function createUpgradeLimits({ settings, trust, reached, clock }: UpgradeLimitsDeps) {
  let sockets = 0
  const socketsOf = new Map<string, number>()
  const rate = new Rate(settings.MAX_UPGRADE_RATE)
  let wholeAt = 0
  const bucketsOf = new TokenBuckets(new Rate(settings.MAX_UPGRADE_RATE_PER_ADDRESS))

  const addressOf = (request: IncomingMessage): string => clientOf(request, trust)

  function refuse(
    limit: Limit,
    status: 429 | 503,
    retrySeconds: number,
    request?: IncomingMessage,
  ): UpgradeAllowance {
    reached.record(limit, request)
    return { allowed: false, limit, status, retrySeconds }
  }

  return {
    addressOf,
    /** Counts an upgrade. One that is refused for its address takes nothing from the others. */
    takeUpgrade(request: IncomingMessage): UpgradeAllowance {
      const address = addressOf(request)
      if (isReached(settings.MAX_CONNECTIONS_PER_ADDRESS, socketsOf.get(address) ?? 0))
        return refuse("connections_per_address", 429, RETRY_SECONDS, request)
      if (isReached(settings.MAX_CONNECTIONS, sockets)) return refuse("connections", 503, RETRY_SECONDS)
      const now = clock()
      const waitMs = bucketsOf.waitMs(address, now)
      if (waitMs > 0) return refuse("upgrade_rate_per_address", 429, seconds(waitMs), request)
      const wholeAgainAt = rate.take(wholeAt, now)
      if (wholeAgainAt === undefined) return refuse("upgrade_rate", 503, seconds(rate.waitMs(wholeAt, now)))
      wholeAt = wholeAgainAt
      bucketsOf.take(address, now)
      return { allowed: true, address }
    },
    addSocket(address: string): void {
      sockets++
      socketsOf.set(address, (socketsOf.get(address) ?? 0) + 1)
    },
    removeSocket(address: string): void {
      sockets--
      const left = (socketsOf.get(address) ?? 1) - 1
      if (left > 0) socketsOf.set(address, left)
      else socketsOf.delete(address)
    },
    /** How many addresses have sockets. */
    addresses: (): number => socketsOf.size,
  }
}

const isReached = (limit: number, count: number): boolean => limit !== 0 && count >= limit

const seconds = (ms: number): number => Math.max(1, Math.ceil(ms / 1_000))
