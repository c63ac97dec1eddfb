/** Supervision: one session after another to something that fails now and then, with pauses, and how it stands. */

import { backoff } from "./backoff.ts"
import { type Clock, sleep } from "./clock.ts"
import { reasonOf } from "./refusal.ts"

/** Times are monotonic milliseconds. */
export type SessionState<Facts> =
  | {
      kind: "down"
      since: number
      /** How many sessions in a row have failed without having been up. */
      attempts: number
      error: string | undefined
    }
  | ({ kind: "up"; since: number } & Facts)

/** A session that has failed. */
export interface Loss {
  wasUp: boolean
  attempts: number
  /** The pause before the next session, in milliseconds. */
  retryMs: number
  error: string
}

export interface SupervisorDeps {
  /** Runs one session. Rejects when it fails, and ends early when the signal is aborted. */
  session(signal: AbortSignal): Promise<void>
  onLost(loss: Loss): void
  clock: Clock
}

/** @template Facts what is known of a session that is up. */
export class Supervisor<Facts extends object> {
  readonly #deps: SupervisorDeps
  readonly #closing = new AbortController()
  #state: SessionState<Facts>
  #running: Promise<void> | undefined

  constructor(deps: SupervisorDeps) {
    this.#deps = deps
    this.#state = { kind: "down", since: deps.clock.now(), attempts: 0, error: undefined }
  }

  get state(): SessionState<Facts> {
    return this.#state
  }

  /** Runs sessions until it is stopped. */
  start(): void {
    this.#running ??= this.#run()
  }

  /** Notes that the session works, or what is now known of it. */
  up(facts: Facts): void {
    const since = this.#state.kind === "up" ? this.#state.since : this.#deps.clock.now()
    this.#state = { kind: "up", since, ...facts }
  }

  /** Notes that the session goes on but does not work. */
  down(error: string): void {
    this.#state = { kind: "down", since: this.#deps.clock.now(), attempts: 0, error }
  }

  /** Ends the session or the pause. */
  async stop(): Promise<void> {
    this.#closing.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      try {
        await this.#deps.session(signal)
      } catch (error) {
        if (signal.aborted) return
        await sleep(this.#deps.clock, this.#lose(reasonOf(error)), signal)
      }
    }
  }

  /** @returns how long to wait before the next session, in milliseconds. */
  #lose(error: string): number {
    const wasUp = this.#state.kind === "up"
    const attempts = this.#state.kind === "up" ? 0 : this.#state.attempts + 1
    const since = wasUp ? this.#deps.clock.now() : this.#state.since
    this.#state = { kind: "down", since, attempts, error }
    const retryMs = backoff(attempts)
    this.#deps.onLost({ wasUp, attempts, retryMs, error })
    return retryMs
  }
}
