/** The channels: those that the caller wants, those that the connection has, and those that its token does not allow. */

import { createPendingRequests } from "./pending.ts"

export interface ChannelsDeps {
  start: readonly string[]
  /** Those that are wanted and cannot be had have changed. @param lost those that are new among them. */
  onDenied(denied: string[], lost: string[], cause: string): void
}

export interface ChannelRequest {
  type: "subscribe" | "unsubscribe"
  channels: string[]
}

export interface Channels {
  /** The user of the connections so far. */
  readonly user: string | undefined
  /** All that the caller wants and has been granted, or has begun with. */
  held(): string[]
  /** Those for a URL; undefined if they have to be asked for by frames. */
  forUrl(): string | undefined
  /** As few as a connection can begin with: the own messages, where that can be said. */
  leastForUrl(): string | undefined
  /** The relay accepted a connection, with these. @returns whether some are back that were lost. */
  connected(channels: readonly string[], user: string, token: string): boolean
  /** The relay accepted another token, and leaves these. */
  renewed(channels: readonly string[], token: string | undefined): void
  /** Resolves when they are live. */
  add(channels: readonly string[]): Promise<void>
  remove(channels: readonly string[]): void
  /** What to ask the relay for next. @param pending also what was asked for and is not live yet. */
  next(pending: boolean): ChannelRequest | undefined
  /** Whether a request only asks again for what was refused before. */
  isRepeated(request: ChannelRequest): boolean
  /** @returns whether some are back that were lost. */
  granted(request: ChannelRequest): boolean
  /** @param forbidden those that are to blame, as far as the relay names them. */
  refused(request: ChannelRequest, forbidden: readonly string[], error: Error): void
  /** The relay ended a connection for its channels. @param request the one that it was at. */
  tooMany(request: ChannelRequest | undefined, error: Error): void
  /** Asks for them by frames at the next connection, so that those to blame are found. */
  askSingly(): void
  close(error: Error): void
}

/** In one request. A frame may have 16 KiB, and a character of a name takes three bytes of it at most. */
const MOST_CHANNELS = 64
const MOST_CHARACTERS = 4_000
/** What a list in a URL can say: no commas. */
const LISTABLE = /^[a-z]\w*(:[^\s:,]{1,128})?$/

export function createChannels({ start, onDenied }: ChannelsDeps): Channels {
  const held = new Set(start)
  let has = new Set<string>()
  /** Those of the held that were refused, each with the number of the token that was refused them. */
  const lost = new Map<string, number>()
  let tokens = 0
  let lastToken: string | undefined
  let user: string | undefined
  let most = MOST_CHANNELS
  /** Whether fewer were asked for only to find out whom a refusal concerned. */
  let grows = true
  let singly = false
  const pending = createPendingRequests<readonly string[]>()

  const isOwn = (channel: string) => channel === `user:${user}`
  const isWanted = (channel: string) =>
    held.has(channel) || pending.all().some(({ wanted }) => wanted.includes(channel))
  const listed = (channels: string[]) =>
    channels.length > 0 && channels.every((channel) => LISTABLE.test(channel))
      ? channels.join(",")
      : undefined
  const tell = (news: string[] = [], cause = "") => onDenied([...lost.keys()], news, cause)

  function chunk(channels: string[]): string[] {
    let characters = 0
    return channels.slice(0, most).filter((channel, i) => {
      characters += channel.length + 3
      return i === 0 || characters <= MOST_CHARACTERS
    })
  }

  function lose(channels: string[], cause: string): void {
    const news = channels.filter((channel) => held.has(channel) && !lost.has(channel))
    for (const channel of channels) if (held.has(channel)) lost.set(channel, tokens)
    if (news.length > 0) tell(news, cause)
  }

  /** @returns whether one of these was lost. */
  function findAgain(channels: Iterable<string>): boolean {
    const before = lost.size
    for (const channel of channels) lost.delete(channel)
    if (lost.size === before) return false
    tell()
    return true
  }

  function settle(): void {
    for (const request of pending.remove(({ wanted }) => wanted.every((channel) => has.has(channel)))) {
      for (const channel of request.wanted) held.add(channel)
      request.resolve()
    }
  }

  function reject(channels: readonly string[], error: Error): void {
    for (const request of pending.remove(({ wanted }) => wanted.some((name) => channels.includes(name))))
      request.reject(error)
  }

  return {
    get user() {
      return user
    },
    held: () => [...held],
    forUrl: () => (singly ? undefined : listed([...held].filter((channel) => !lost.has(channel)))),
    leastForUrl: () => (user === undefined ? undefined : listed([`user:${user}`])),
    connected(channels, itsUser, token) {
      has = new Set(channels)
      user = itsUser
      if (token !== lastToken) tokens++
      lastToken = token
      singly = false
      return findAgain(channels)
    },
    renewed(channels, token) {
      const before = has
      has = new Set(channels)
      if (token !== lastToken) tokens++
      lastToken = token
      lose(
        [...before].filter((channel) => !has.has(channel)),
        "the new token does not allow them",
      )
    },
    add(channels) {
      return pending.add([...channels])
    },
    remove(channels) {
      for (const channel of channels) held.delete(channel)
      findAgain(channels)
      reject(channels, new Error("unsubscribed before it was live"))
    },
    next(withPending) {
      if (withPending) settle()
      const extra = [...has].filter((channel) => !isOwn(channel) && !isWanted(channel))
      if (extra.length > 0) return { type: "unsubscribe", channels: chunk(extra) }
      const missing = new Set([...held].filter((channel) => lost.get(channel) !== tokens))
      if (withPending)
        for (const { wanted } of pending.all()) for (const channel of wanted) missing.add(channel)
      const asked = chunk([...missing].filter((channel) => !has.has(channel)))
      return asked.length > 0 ? { type: "subscribe", channels: asked } : undefined
    },
    isRepeated: ({ channels }) =>
      channels.every((channel) => lost.has(channel)) &&
      !pending.all().some(({ wanted }) => wanted.some((channel) => channels.includes(channel))),
    granted({ type, channels }) {
      if (grows) most = Math.min(MOST_CHANNELS, most * 2)
      for (const channel of channels) {
        if (type === "subscribe") has.add(channel)
        else has.delete(channel)
      }
      return type === "subscribe" && findAgain(channels)
    },
    refused({ type, channels }, forbidden, error) {
      // What cannot be left is not there.
      if (type === "unsubscribe") return channels.forEach((channel) => void has.delete(channel))
      const known = channels.filter((channel) => forbidden.includes(channel))
      const toBlame = known.length > 0 ? known : channels.length === 1 ? channels : []
      if (toBlame.length === 0) most = Math.ceil(channels.length / 2)
      reject(toBlame, error)
      lose(toBlame, error.message)
    },
    tooMany(request, error) {
      singly = true
      grows = false
      if (request?.type !== "subscribe") return
      if (request.channels.length > 1) {
        most = Math.ceil(request.channels.length / 2)
        return
      }
      // There is no room for this one, nor for any other.
      const missing = [...held].filter((channel) => !has.has(channel))
      for (const channel of missing) held.delete(channel)
      tell(missing, error.message)
      reject(
        pending.all().flatMap(({ wanted }) => wanted.filter((channel) => !has.has(channel))),
        error,
      )
    },
    askSingly() {
      singly = true
    },
    close: pending.close,
  }
}
