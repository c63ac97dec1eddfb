/** The limits on clients: how many may be here, how fast they may come, and how fast they may send. In this process. */

import type { Trust } from "../lib/client-address.ts"
import type { Log } from "../telemetry/log.ts"
import type { Limit, Metrics } from "../telemetry/metrics.ts"
import { type ClientLimitsDeps, createClientLimits } from "./client-limits.ts"
import { createReachedLimits } from "./reached-limits.ts"
import { createUpgradeLimits, type UpgradeLimitsDeps } from "./upgrade-limits.ts"

export interface LimitsDeps {
  /** 0 is no limit, but for channels. */
  settings: UpgradeLimitsDeps["settings"] & ClientLimitsDeps["settings"]
  trust: Trust
  log: Log
  metrics: Metrics
  /** Monotonic milliseconds. */
  clock?: (() => number) | undefined
}

export type Limits = ReturnType<typeof createLimits>

export function createLimits({ settings, trust, log, metrics, clock = () => performance.now() }: LimitsDeps) {
  const reached = createReachedLimits({ trust, log, metrics, clock })
  return {
    ...createUpgradeLimits({ settings, trust, reached, clock }),
    ...createClientLimits({ settings, reached, clock }),
    /** Counts a limit that was reached elsewhere. */
    record: (limit: Limit): void => reached.record(limit),
    /** How often each limit was reached. */
    reached: reached.counts,
  }
}
