/** The channels that are wanted, those that the connection has, and who waits for which. */

import { createWaiting } from "./waiting.ts"

export interface Channels {
  /** What a connection is to have. Once the user is known it is never empty, which would mean the relay's default. */
  wanted(): string[]
  /** A connection has these. */
  joined(channels: readonly string[], user: string): void
  /** Resolves when they are live. */
  add(channels: readonly string[]): Promise<void>
  remove(channels: readonly string[]): void
  /** Asks for what is missing and gives up what is too much. */
  settle(ask: (type: "subscribe" | "unsubscribe", channels: string[]) => number): void
  granted(request: unknown, channels: readonly string[]): void
  refused(request: unknown, error: Error): void
  /** There is no connection. */
  lost(): void
  end(error: Error): void
}

export function createChannels(start: readonly string[]): Channels {
  const wanted = new Set(start)
  let has = new Set<string>()
  let own = ""
  const waiting = createWaiting<readonly string[]>()

  return {
    wanted: () => (wanted.size === 0 && own !== "" ? [own] : [...wanted]),
    joined(channels, user) {
      has = new Set(channels)
      own = `user:${user}`
    },
    add(channels) {
      for (const channel of channels) wanted.add(channel)
      return waiting.add(channels)
    },
    remove(channels) {
      for (const channel of channels) wanted.delete(channel)
      for (const waiter of waiting.part(({ asked }) => asked.some((channel) => !wanted.has(channel))))
        waiter.reject(new Error("unsubscribed before it was live"))
    },
    settle(ask) {
      for (const waiter of waiting.all()) {
        const missing = waiter.asked.filter((channel) => !has.has(channel))
        if (waiter.request === undefined && missing.length > 0) waiter.request = ask("subscribe", missing)
      }
      for (const waiter of waiting.part(({ request }) => request === undefined)) waiter.resolve()
      const extra = [...has].filter((channel) => channel !== own && !wanted.has(channel))
      for (const channel of extra) has.delete(channel)
      if (extra.length > 0) ask("unsubscribe", extra)
    },
    granted(request, channels) {
      for (const channel of channels) has.add(channel)
      for (const waiter of waiting.part((waiter) => waiter.request === request)) waiter.resolve()
    },
    refused(request, error) {
      for (const waiter of waiting.part((waiter) => waiter.request === request)) {
        for (const channel of waiter.asked) if (!has.has(channel)) wanted.delete(channel)
        waiter.reject(error)
      }
    },
    lost: waiting.lost,
    end: waiting.end,
  }
}
