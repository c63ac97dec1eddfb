/**
 * Owns LISTEN. A bell is only a hint to read the log; losing one costs latency, never data.
 *
 * pg-listen is used for one session at a time, and a lost session is replaced by a new one here: its own reconnecting
 * gives up after three seconds, cannot be closed while it runs, does not notice a half-open socket, and ends the
 * process on an error that nobody listens to.
 */

import { randomUUID } from "node:crypto"
import { Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import pgListen from "pg-listen"
import { z } from "zod"
import { backoff } from "../lib/backoff.ts"
import { deferred } from "../lib/deferred.ts"
import { readJson } from "../lib/json.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"

/** What capture, relays and their canaries send. Anything else on the channel is counted and ignored. */
const Notification = z.union([
  z.object({ v: z.literal(1), table: z.string(), op: z.string(), rows: z.number(), xid: z.string() }),
  z.object({ v: z.literal(1), lease: z.number() }),
  z.object({ v: z.literal(1), canary: z.string() }),
])

export type ListenerState =
  | { kind: "down"; since: number; attempts: number; error: string | undefined }
  | { kind: "up"; since: number; provenAt: number }

export interface Listener {
  start(): void
  state(): ListenerState
  stop(): Promise<void>
}

export interface ListenerDeps {
  connectionString: string
  channel: string
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
}

/** Below the usual 30 s of probes, so that readiness turns before they would notice. */
const PROOF_INTERVAL_MS = 10_000
const PROOF_TIMEOUT_MS = 5_000
const MAX_PAYLOAD = 8_000

export function createListener(deps: ListenerDeps): Listener {
  const { channel, log, metrics, onBell, onLease, onUp } = deps
  const name = randomUUID()
  const closing = new AbortController()
  let state: ListenerState = { kind: "down", since: performance.now(), attempts: 0, error: undefined }
  let running: Promise<void> | undefined
  let answer: ((canary: string) => void) | undefined

  function receive(payload: unknown): void {
    const notification =
      typeof payload === "string" && payload.length < MAX_PAYLOAD ? readNotification(payload) : undefined
    if (notification === undefined) {
      metrics.bells.inc({ kind: "garbage" })
    } else if ("canary" in notification) {
      answer?.(notification.canary)
    } else if ("lease" in notification) {
      metrics.bells.inc({ kind: "lease" })
      onLease()
    } else {
      metrics.bells.inc({ kind: "bell" })
      onBell(notification.xid)
    }
  }

  /** One LISTEN session, from connecting to its loss. Returns only when stopping; otherwise it throws. */
  async function session(): Promise<void> {
    const socket = new Socket()
    const lost = deferred<never>()
    const subscriber = pgListen.default<Record<string, string>>(
      {
        connectionString: deps.connectionString,
        application_name: "commitcast listener",
        stream: () => socket,
        connectionTimeoutMillis: 10_000,
      },
      { paranoidChecking: false, retryLimit: 1, parse: (text) => text, serialize: (text: string) => text },
    )
    subscriber.events.on("error", lost.reject)
    subscriber.events.on("notification", (notification) => {
      if (notification.channel === channel) receive(notification.payload)
    })
    const stop = () => lost.reject(new Error("stopping"))
    closing.signal.addEventListener("abort", stop, { once: true })

    async function prove(): Promise<void> {
      const canary = `${name}:${randomUUID()}`
      const arrived = deferred<void>()
      answer = (received) => {
        if (received === canary) arrived.resolve()
      }
      const deadline = new AbortController()
      const late = sleep(deps.proofTimeoutMs ?? PROOF_TIMEOUT_MS, undefined, {
        signal: deadline.signal,
      }).then(() => {
        throw new Error("a notification to itself did not come back in time")
      })
      try {
        const sent = subscriber.notify(channel, JSON.stringify({ v: 1, canary }))
        sent.catch(lost.reject)
        await Promise.race([arrived.promise, late, lost.promise])
      } finally {
        deadline.abort()
        late.catch(() => {})
      }
    }

    try {
      await Promise.race([subscriber.connect(), lost.promise])
      await Promise.race([subscriber.listenTo(channel), lost.promise])
      await prove()
      const since = performance.now()
      state = { kind: "up", since, provenAt: since }
      log.info({ event: "listener_up", channel }, "listening")
      onUp()
      for (;;) {
        await Promise.race([
          sleep(deps.proofIntervalMs ?? PROOF_INTERVAL_MS, undefined, { signal: closing.signal }),
          lost.promise,
        ])
        await prove()
        state = { kind: "up", since, provenAt: performance.now() }
      }
    } finally {
      closing.signal.removeEventListener("abort", stop)
      answer = undefined
      // pg-listen's close() waits for the server to answer, which a half-open socket never does.
      subscriber.close().catch(() => {})
      if (closing.signal.aborted) socket.end()
      else socket.destroy()
    }
  }

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      const wasUp = await session().then(
        () => false,
        (error: Error) => {
          if (closing.signal.aborted) return false
          const up = state.kind === "up"
          const attempts = state.kind === "up" ? 0 : state.attempts + 1
          state = {
            kind: "down",
            since: state.kind === "up" ? performance.now() : state.since,
            attempts,
            error: error.message,
          }
          return up
        },
      )
      if (closing.signal.aborted || state.kind === "up") return
      if (wasUp) metrics.listenerLost.inc()
      const delay = backoff(state.attempts)
      log.warn(
        {
          event: "listener_down",
          attempt: state.attempts,
          retry_in_ms: Math.round(delay),
          error: state.error,
        },
        "not listening; polling goes on",
      )
      await sleep(delay, undefined, { signal: closing.signal }).catch(() => {})
    }
  }

  return {
    start() {
      running ??= run()
    },
    state: () => state,
    async stop() {
      closing.abort()
      await running
    },
  }
}

const readNotification = (payload: string): z.infer<typeof Notification> | undefined =>
  Notification.safeParse(readJson(payload)).data
