/** The channels that are wanted, those that the connection has, and who waits for which. */

interface Waiter {
  channels: readonly string[]
  /** The request that asks for those that are missing, while it is under way. */
  request: number | undefined
  resolve(): void
  reject(error: Error): void
}

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
  let waiters: Waiter[] = []
  let ended: Error | undefined

  function part(test: (waiter: Waiter) => boolean): Waiter[] {
    const found = waiters.filter(test)
    waiters = waiters.filter((waiter) => !found.includes(waiter))
    return found
  }

  return {
    wanted: () => (wanted.size === 0 && own !== "" ? [own] : [...wanted]),
    joined(channels, user) {
      has = new Set(channels)
      own = `user:${user}`
    },
    add(channels) {
      for (const channel of channels) wanted.add(channel)
      const live = new Promise<void>((resolve, reject) => {
        if (ended !== undefined) reject(ended)
        else waiters.push({ channels, request: undefined, resolve, reject })
      })
      // Who does not wait for it hears of it by the error event.
      live.catch(() => {})
      return live
    },
    remove(channels) {
      for (const channel of channels) wanted.delete(channel)
      for (const waiter of part((waiter) => waiter.channels.some((channel) => !wanted.has(channel))))
        waiter.reject(new Error("unsubscribed before it was live"))
    },
    settle(ask) {
      for (const waiter of waiters) {
        const missing = waiter.channels.filter((channel) => !has.has(channel))
        if (waiter.request === undefined && missing.length > 0) waiter.request = ask("subscribe", missing)
      }
      for (const waiter of part(({ request }) => request === undefined)) waiter.resolve()
      const extra = [...has].filter((channel) => channel !== own && !wanted.has(channel))
      for (const channel of extra) has.delete(channel)
      if (extra.length > 0) ask("unsubscribe", extra)
    },
    granted(request, channels) {
      for (const channel of channels) has.add(channel)
      for (const waiter of part((waiter) => waiter.request === request)) waiter.resolve()
    },
    refused(request, error) {
      for (const waiter of part((waiter) => waiter.request === request)) {
        for (const channel of waiter.channels) if (!has.has(channel)) wanted.delete(channel)
        waiter.reject(error)
      }
    },
    lost() {
      for (const waiter of waiters) waiter.request = undefined
    },
    end(error) {
      ended = error
      for (const waiter of part(() => true)) waiter.reject(error)
    },
  }
}
