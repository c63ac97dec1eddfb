/** The channels: those that the caller wants, those that the connection has, and the requests for the rest. */

import { createPendingRequests } from "./pending.ts"

export interface Channels {
  /** Those to connect with. Once the user is known there is at least one: none would mean the relay's default. */
  wanted(): string[]
  /** The relay accepted a connection, with these. */
  connected(channels: readonly string[], user: string): void
  /** Resolves when they are live. */
  add(channels: readonly string[]): Promise<void>
  remove(channels: readonly string[]): void
  /** Subscribes to what is missing and unsubscribes from what is not wanted. @param send returns the request's number. */
  reconcile(send: (type: "subscribe" | "unsubscribe", channels: string[]) => number): void
  granted(request: unknown, channels: readonly string[]): void
  refused(request: unknown, error: Error): void
  /** There is no connection. */
  disconnected(): void
  close(error: Error): void
}

export function createChannels(start: readonly string[]): Channels {
  const wanted = new Set(start)
  let has = new Set<string>()
  let own = ""
  const pending = createPendingRequests<readonly string[]>()

  return {
    wanted: () => (wanted.size === 0 && own !== "" ? [own] : [...wanted]),
    connected(channels, user) {
      has = new Set(channels)
      own = `user:${user}`
    },
    add(channels) {
      for (const channel of channels) wanted.add(channel)
      return pending.add(channels)
    },
    remove(channels) {
      for (const channel of channels) wanted.delete(channel)
      for (const request of pending.remove((request) =>
        request.wanted.some((channel) => !wanted.has(channel)),
      ))
        request.reject(new Error("unsubscribed before it was live"))
    },
    reconcile(send) {
      for (const request of pending.all()) {
        const missing = request.wanted.filter((channel) => !has.has(channel))
        if (request.id === undefined && missing.length > 0) request.id = send("subscribe", missing)
      }
      for (const request of pending.remove(({ id }) => id === undefined)) request.resolve()
      const extra = [...has].filter((channel) => channel !== own && !wanted.has(channel))
      for (const channel of extra) has.delete(channel)
      if (extra.length > 0) send("unsubscribe", extra)
    },
    granted(id, channels) {
      for (const channel of channels) has.add(channel)
      for (const request of pending.remove((request) => request.id === id)) request.resolve()
    },
    refused(id, error) {
      for (const request of pending.remove((request) => request.id === id)) {
        for (const channel of request.wanted) if (!has.has(channel)) wanted.delete(channel)
        request.reject(error)
      }
    },
    disconnected: pending.disconnected,
    close: pending.close,
  }
}
