/** The clients of a server under test, as the bench sees them: a handle on a load generator. */

import type { Order, Reached, Report } from "./load.ts"
import { startHelper } from "./subprocess.ts"
import type { Target } from "./target.ts"

export interface Audience {
  /** Adds clients; resolves when the server has let all of them in. */
  connect(count: number): Promise<void>
  /** Counts from zero. */
  begin(): Promise<void>
  /** Waits until so many events have come to all clients together since `begin`. */
  reach(events: number, timeoutMs?: number): Promise<Reached>
  report(): Promise<Report>
  /** Connects and hangs up again, so many times. */
  churn(count: number): Promise<void>
  hangUp(): Promise<void>
  stop(): Promise<void>
}

const PATIENCE_MS = 10_000

/** Starts a load generator, with no clients yet. */
export function startAudience(target: Target): Audience {
  const { ask, stop } = startHelper<Order>("load.ts")
  return {
    connect: (count) => ask({ kind: "connect", target, count }),
    begin: () => ask({ kind: "begin" }),
    reach: (events, timeoutMs = PATIENCE_MS) => ask<Reached>({ kind: "reach", events, timeoutMs }),
    report: () => ask<Report>({ kind: "report" }),
    churn: (count) => ask({ kind: "churn", target, count }),
    hangUp: () => ask({ kind: "hang up" }),
    stop,
  }
}
