/** The limits that were reached: counted one by one, logged once in a while. */

import type { IncomingMessage } from "node:http"
import { fromUntrustedProxy, type Trust } from "../lib/client-address.ts"
import type { Counts } from "../telemetry/counts.ts"
import type { Log } from "../telemetry/log.ts"
import type { Limit, Metrics } from "../telemetry/metrics.ts"

export interface ReachedLimitsDeps {
  trust: Trust
  log: Log
  metrics: Metrics
  clock(): number
}

export interface ReachedLimits {
  /** @param request the one that reached a limit by address. */
  record(limit: Limit, request?: IncomingMessage): void
  counts(): Counts
}

/** A limit that is reached all the time is logged as often as this. Milliseconds. */
const LOG_MS = 60_000

export function createReachedLimits({ trust, log, metrics, clock }: ReachedLimitsDeps): ReachedLimits {
  const reached = new Map<Limit, { times: number; loggedAt: number }>()

  function warn(limit: Limit, times: number, request: IncomingMessage | undefined): void {
    const fields = { event: "limit_reached", limit, times }
    const setting =
      limit === "descriptors"
        ? "the number of sockets that ulimit -n leaves room for"
        : `MAX_${limit.toUpperCase()}`
    if (request === undefined || !fromUntrustedProxy(request, trust))
      return log.warn(fields, `${setting} has been reached`)
    log.warn(
      { ...fields, proxy: request.socket.remoteAddress },
      `${setting} has been reached by an address that sends X-Forwarded-For and is not in TRUST_PROXY: if it is a proxy, all its clients count as one`,
    )
  }

  return {
    record(limit, request) {
      metrics.limits.inc({ limit })
      const { times: before, loggedAt } = reached.get(limit) ?? {
        times: 0,
        loggedAt: Number.NEGATIVE_INFINITY,
      }
      const times = before + 1
      const due = clock() - loggedAt >= LOG_MS
      reached.set(limit, { times, loggedAt: due ? clock() : loggedAt })
      if (due) warn(limit, times, request)
    },
    counts: () => Object.fromEntries([...reached].map(([limit, { times }]) => [limit, times])),
  }
}
