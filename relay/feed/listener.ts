/** The listener: hears the bell. A bell is only a hint to read the log; losing one costs latency, never data. */

import { randomUUID } from "node:crypto"
import { type Clock, systemClock } from "../lib/clock.ts"
import { type Deferred, deferred } from "../lib/deferred.ts"
import { type Loss, type SessionState, Supervisor } from "../lib/supervise.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { ListenOptions, ListenSession } from "./listen-session.ts"
import { readNotification } from "./notification.ts"

export type ListenerState = SessionState<{ provenAt: number }>

export interface ListenerDeps {
  open(options: Pick<ListenOptions, "onPayload" | "signal">): Promise<ListenSession>
  log: Log
  metrics: Metrics
  /** A transaction says that it was committed. */
  onBell(xid: string): void
  /** A relay says that it polls, so that writers do not ring. */
  onLease(): void
  /** LISTEN is in force and proven: time to read what was missed. */
  onUp(): void
  /** Milliseconds between two proofs, and how long one may take. */
  proofIntervalMs?: number
  proofTimeoutMs?: number
  clock?: Clock
}

/** Below the usual 30 s of probes, so that readiness turns before they would notice. */
const PROOF_INTERVAL_MS = 10_000
const PROOF_TIMEOUT_MS = 5_000

export class Listener {
  readonly #deps: ListenerDeps
  readonly #clock: Clock
  readonly #name = randomUUID()
  readonly #supervisor: Supervisor<{ provenAt: number }>
  /** How many notifications have come that were no proofs. */
  #heard = 0
  /** A notification to itself that should come back. */
  #proof: { canary: string; arrived: Deferred<void> } | undefined

  constructor(deps: ListenerDeps) {
    this.#deps = deps
    this.#clock = deps.clock ?? systemClock
    this.#supervisor = new Supervisor({
      session: (signal) => this.#session(signal),
      onLost: (loss) => this.#lost(loss),
      clock: this.#clock,
    })
  }

  get state(): ListenerState {
    return this.#supervisor.state
  }

  start(): void {
    this.#supervisor.start()
  }

  stop(): Promise<void> {
    return this.#supervisor.stop()
  }

  async #session(signal: AbortSignal): Promise<void> {
    const { open, log, onUp, proofIntervalMs = PROOF_INTERVAL_MS } = this.#deps
    const session = await open({ onPayload: (payload) => this.#receive(payload), signal })
    try {
      await this.#prove(session)
      this.#supervisor.up({ provenAt: this.#clock.now() })
      log.info({ event: "listener_up", channel: session.channel }, "listening")
      onUp()
      for (;;) {
        await this.#within(proofIntervalMs, session.lost)
        await this.#prove(session)
        this.#supervisor.up({ provenAt: this.#clock.now() })
      }
    } finally {
      session.close()
    }
  }

  #receive(payload: unknown): void {
    const { metrics, onBell, onLease } = this.#deps
    const notification = readNotification(payload)
    if (notification === undefined || !("canary" in notification)) this.#heard++
    if (notification === undefined) {
      metrics.bells.inc({ kind: "garbage" })
    } else if ("canary" in notification) {
      if (notification.canary === this.#proof?.canary) this.#proof.arrived.resolve()
    } else if ("lease" in notification) {
      metrics.bells.inc({ kind: "lease" })
      onLease()
    } else {
      metrics.bells.inc({ kind: "bell" })
      onBell(notification.xid)
    }
  }

  /**
   * Proves the session by a notification that comes back. Behind a flood of others it comes late; then each that comes
   * meanwhile says as well that the session listens. @throws if none comes.
   */
  async #prove(session: ListenSession): Promise<void> {
    const { proofTimeoutMs = PROOF_TIMEOUT_MS } = this.#deps
    const proof = { canary: `${this.#name}:${randomUUID()}`, arrived: deferred<void>() }
    this.#proof = proof
    session.notify(JSON.stringify({ v: 1, canary: proof.canary }))
    const arrived = Promise.race([proof.arrived.promise, session.lost])
    const heard = this.#heard
    if (!(await this.#within(proofTimeoutMs, arrived)) && this.#heard === heard)
      throw new Error("a notification to itself did not come back in time")
  }

  /** Waits for a promise, at most for so many milliseconds. @returns whether it resolved. */
  async #within(ms: number, promise: Promise<void>): Promise<boolean> {
    const late = deferred<boolean>()
    const cancel = this.#clock.after(ms, () => late.resolve(false))
    try {
      return await Promise.race([promise.then(() => true), late.promise])
    } finally {
      cancel()
    }
  }

  #lost({ wasUp, attempts, retryMs, error }: Loss): void {
    const { log, metrics } = this.#deps
    if (wasUp) metrics.listenerLost.inc()
    log.warn(
      { event: "listener_down", attempt: attempts, retry_in_ms: Math.round(retryMs), error },
      "not listening; polling goes on",
    )
  }
}
