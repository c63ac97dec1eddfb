/**
 * One LISTEN session, by pg-listen, from connecting to its loss. A lost one is replaced by another rather than by
 * pg-listen's own reconnecting, which gives up after three seconds, cannot be closed while it runs, does not notice a
 * half-open socket, and ends the process on an error that nobody listens to.
 */

import pgListen from "pg-listen"
import type { Database } from "../lib/database.ts"
import { deferred } from "../lib/deferred.ts"
import { pinnedConnection } from "../lib/pinned-client.ts"

export interface ListenSession {
  readonly channel: string
  /** Rejects when the session is lost, or its signal aborted. */
  readonly lost: Promise<never>
  /** Sends on the channel; a failure is a loss. */
  notify(payload: string): void
  close(): void
}

export interface ListenOptions {
  database: Database
  channel: string
  onPayload(payload: unknown): void
  signal: AbortSignal
}

const CONNECT_MS = 10_000

/** @throws if the database cannot be reached, or the signal is aborted meanwhile. */
export async function openListenSession({
  database,
  channel,
  onPayload,
  signal,
}: ListenOptions): Promise<ListenSession> {
  const lost = deferred<never>()
  const stop = () => lost.reject(new Error("stopping"))
  signal.addEventListener("abort", stop)
  const dialling = database.dial("commitcast listener")
  const dialled = await Promise.race([dialling, lost.promise]).catch((error) => {
    signal.removeEventListener("abort", stop)
    dialling.then(
      ({ stream }) => stream().destroy(),
      () => {},
    )
    throw error
  })
  const config = { ...dialled, keepAlive: true, connectionTimeoutMillis: CONNECT_MS }
  const socket = dialled.stream()
  const subscriber = pgListen.default<Record<string, string>>(
    { ...config, ...pinnedConnection(database, config) },
    { paranoidChecking: false, retryLimit: 1, parse: (text) => text, serialize: (text: string) => text },
  )
  subscriber.events.on("error", lost.reject)
  subscriber.events.on("notification", (notification) => {
    if (notification.channel === channel) onPayload(notification.payload)
  })

  function close(): void {
    signal.removeEventListener("abort", stop)
    // pg-listen's close() waits for the server to answer, which a half-open socket never does.
    subscriber.close().catch(() => {})
    if (signal.aborted) socket.end()
    else socket.destroy()
  }

  try {
    await Promise.race([subscriber.connect(), lost.promise])
    await Promise.race([subscriber.listenTo(channel), lost.promise])
  } catch (error) {
    close()
    throw error
  }
  return {
    channel,
    lost: lost.promise,
    notify: (payload) => void subscriber.notify(channel, payload).catch(lost.reject),
    close,
  }
}
