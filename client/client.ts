/** Follows a relay: each change once, through lost connections, or word that the state has to be loaded anew. */

import { setAlarm } from "./alarm.ts"
import { createChannels } from "./channels.ts"
import { FeedError, type FeedErrorCode, messageOf } from "./error.ts"
import { createFilter, type FilterFields } from "./filter.ts"
import { createListeners } from "./listeners.ts"
import { INITIAL, transition } from "./machine.ts"
import type { ApplicationMessage, ChangeMessage, DerivedMessage, Reason, ServerMessage } from "./messages.ts"
import { type Page, type PageEvent, thisPage, watchPage } from "./page.ts"
import { Position } from "./position.ts"
import { openSocket, type Socket, type WebSocketConstructor } from "./socket.ts"
import type { Effect, Event, Facts, State } from "./state.ts"
import { createShelf, type StorageLike } from "./storage.ts"
import { createTokens } from "./token.ts"
import type { AnyRows, EventName, EventOf, Rows } from "./types.ts"
import { createWatchdog } from "./watchdog.ts"

// A package has one door: what a program may import, and every type that it then meets.
export { FeedError, type FeedErrorCode } from "./error.ts"
export type { FilterFields, Tests } from "./filter.ts"
export type { ApplicationMessage, ChangeMessage, DerivedMessage, Reason, Tx } from "./messages.ts"
export type { Page } from "./page.ts"
export type { WebSocketConstructor, WebSocketLike } from "./socket.ts"
export type { Kind, Stale, State, Tries } from "./state.ts"
export type { StorageLike } from "./storage.ts"
export type { AnyRows, Change, ChangeOf, EventName, EventOf, FeedEvents, Rows } from "./types.ts"

/** Loads the caller's state. Returns the cursor that was read with it, if one was. */
export type Resync = (why: { reason: Reason; signal: AbortSignal }) => Promise<{ cursor: string } | undefined>

export interface Options extends FilterFields {
  /** The relay, such as `wss://relay.example.org/ws`. */
  url: string
  /** A token that is good for as long as the feed is needed; otherwise `getToken`. */
  token?: string
  /** Asked for a token when one is needed, and for another before it expires. */
  getToken?: () => string | Promise<string>
  /** `election_updates` unless told otherwise. */
  channels?: readonly string[]
  /** Where the caller's state stands, from relay.cursor(). Goes before what `storage` holds. */
  cursor?: string
  /** Called whenever the caller's state has to be loaded, at first too if there is no cursor. */
  resync?: Resync
  /** Keeps the place over a reload of the page; true: in sessionStorage. */
  storage?: true | StorageLike
  storageKey?: string
  /** Reads a frame, instead of JSON.parse, where numbers are beyond a double. */
  parse?: (text: string) => unknown
  /** Where there is none: that of the package ws. */
  WebSocket?: WebSocketConstructor
  /** Instead of this page's `window`, `document` and `navigator`. */
  page?: Page
}

export interface Feed<R extends Rows = AnyRows> {
  readonly state: State
  /** Everything up to it was delivered. */
  readonly cursor: string | undefined
  /** @returns what ends it. */
  on<Name extends EventName<R>>(name: Name, listener: (value: EventOf<R, Name>) => void): () => void
  /** Resolves when the channels are live. Refused: rejects, and they are forgotten. */
  subscribe(channels: readonly string[]): Promise<void>
  unsubscribe(channels: readonly string[]): void
  /**
   * Changes what is told. Fields that are left out stay, null takes them away. Resolves when it holds. Refused: rejects,
   * and what was before holds on.
   */
  filter(fields: FilterFields): Promise<void>
  /** For good. */
  close(): void
}

type Frame = ServerMessage | ChangeMessage | ApplicationMessage | DerivedMessage

const ALL = "election_updates"
const MARGIN_MS = 10_000
/** What may be held back while the state is loaded. */
const MOST_HELD = 10_000

/**
 * Connects, and stays connected until it is closed or refused.
 * @typeParam R the rows by their types, such as `{ voting_update: Vote }`.
 */
export function connect<R extends Rows = AnyRows>(options: Options): Feed<R> {
  const { channels: start = [ALL], parse = JSON.parse, resync } = options
  const WebSocket = options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket
  if (WebSocket === undefined) throw new TypeError("there is no WebSocket here: pass that of the package ws")
  if (options.token === undefined && options.getToken === undefined)
    throw new TypeError("a token or getToken is needed")
  const url = relayUrl(options.url)

  const listeners = createListeners((error, name) => {
    if (name === "error") console.error(error)
    else report("listener", `a listener to ${name} threw: ${messageOf(error)}`, error)
  })
  const channels = createChannels(start.length === 0 ? [ALL] : start)
  const filter = createFilter(options)
  const tokens = createTokens({
    token: options.token,
    getToken: options.getToken,
    authenticate: (token) => socket?.send({ type: "authenticate", token, request: ++requests }),
    onFailure: (error) => report("token", `no token: ${messageOf(error)}`, error),
  })
  const watchdog = createWatchdog(() => occur({ type: "silent" }))
  const shelf =
    options.storage === undefined
      ? undefined
      : createShelf(
          () => (options.storage === true ? pageStorage() : (options.storage as StorageLike)),
          options.storageKey ?? `commitcast:${url.origin}${url.pathname}`,
          (error) => report("storage", `the place is not kept: ${messageOf(error)}`, error),
        )
  const position = new Position()
  const page = watchPage(options.page ?? thisPage(), onPage)

  let state = INITIAL
  let socket: Socket | undefined
  let requests = 0
  let joinRequest: number | undefined
  let held: Array<Event & { type: "change" | "checkpoint" }> = []
  let cancelTimer = () => {}
  let asking = 0
  let loading: AbortController | undefined
  const waiting: Event[] = []
  let busy = false

  function report(code: FeedErrorCode, message: string, cause?: unknown): void {
    const error = new FeedError(code, message, cause)
    if (!listeners.has("error")) console.error(error)
    listeners.tell("error", error)
  }

  // ----------------------------------------------------------------------------------------- the machine

  const facts = (): Facts => ({
    chance: Math.random(),
    online: page.online(),
    visible: page.visible(),
    hook: resync !== undefined,
    renewable: options.getToken !== undefined,
  })

  /** One event after the other: what happens within a listener waits for its turn. */
  function occur(event: Event): void {
    waiting.push(event)
    proceed()
  }

  function proceed(): void {
    if (busy) return
    busy = true
    try {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) step(next)
    } finally {
      busy = false
    }
  }

  function step(event: Event): void {
    const before = state
    const [after, effects] = transition(before, event, facts())
    if (after !== before) {
      cancelTimer()
      state = after
    }
    for (const effect of effects) run(effect)
    if (after.kind === before.kind) return
    if (after.kind === "closed") end(after.cause)
    listeners.tell("state", after)
  }

  function run(effect: Effect): void {
    switch (effect.do) {
      case "get_token":
        return getToken()
      case "spoil_token":
        return tokens.spoil()
      case "open":
        return open(effect.token)
      case "hang_up":
        return hangUp(effect.politely)
      case "timer":
        cancelTimer = setAlarm(effect.ms, () => occur({ type: "timer" }))
        return
      case "deliver":
        return deliver(effect.change)
      case "hold":
        if (held.push(effect.event) > MOST_HELD) waiting.push({ type: "overflow" })
        return
      case "release":
        waiting.unshift(...held.splice(0))
        return
      case "discard":
        held = []
        return
      case "move":
        position.move(effect.cursor)
        return keep()
      case "rename":
        return position.rename(effect.cursor)
      case "forget":
        position.forget()
        return keep()
      case "tell_resync":
        return listeners.tell("resync", { reason: effect.reason })
      case "load":
        return load(effect.reason)
      case "abort_load":
        return loading?.abort()
      case "join":
        joinRequest = ++requests
        socket?.send({
          type: "subscribe",
          channels: channels.wanted(),
          cursor: effect.cursor,
          request: joinRequest,
        })
        return
      case "settle_channels":
        return settle()
      case "fail":
        return report(effect.code, effect.cause)
    }
  }

  function getToken(): void {
    const mine = ++asking
    tokens.take().then(
      (token) => mine === asking && occur({ type: "token", token }),
      (error) => {
        if (mine !== asking) return
        const cause = `no token: ${messageOf(error)}`
        report("token", cause, error)
        occur({ type: "token_failed", cause })
      },
    )
  }

  function open(token: string): void {
    const target = new URL(url)
    target.searchParams.set("channels", channels.wanted().join(","))
    filter.state(target)
    position.reconnect()
    if (position.cursor !== undefined) target.searchParams.set("cursor", position.cursor)
    try {
      socket = openSocket(WebSocket as WebSocketConstructor, target.href, token, {
        onOpen: () => occur({ type: "alive" }),
        onFrame: receive,
        onEnd: (code, cause) => occur({ type: "ended", code, cause }),
      })
    } catch (error) {
      waiting.push({ type: "unusable", cause: messageOf(error) })
    }
  }

  function hangUp(politely: boolean): void {
    socket?.hangUp(politely)
    socket = undefined
    joinRequest = undefined
    watchdog.stop()
    tokens.pause()
    channels.lost()
    filter.lost()
  }

  function deliver(change: ChangeMessage | ApplicationMessage): void {
    if (!position.take(change.id)) return
    listeners.tell(change.type, change)
    if ("action" in change) listeners.tell("change", change)
  }

  function load(reason: Reason): void {
    const mine = new AbortController()
    loading = mine
    // A hook that throws at once has failed like any other.
    const found = async () => resync?.({ reason, signal: mine.signal })
    found().then(
      (result) => {
        if (!mine.signal.aborted) occur({ type: "loaded", cursor: result?.cursor })
      },
      (error) => {
        if (mine.signal.aborted) return
        report("resync", `the state was not loaded: ${messageOf(error)}`, error)
        occur({ type: "load_failed" })
      },
    )
  }

  function settle(): void {
    const ask = (message: object) => {
      socket?.send({ ...message, request: ++requests })
      return requests
    }
    channels.settle((type, names) => ask({ type, channels: names }))
    filter.settle((fields) => ask({ type: "subscribe", ...fields }))
  }

  const keep = () => shelf?.write(position.place())

  function end(cause: string): void {
    page.stop()
    keep()
    const error = new FeedError("refused", cause)
    channels.end(error)
    filter.end(error)
  }

  // ----------------------------------------------------------------------------------------- what comes in

  function onPage(event: PageEvent): void {
    // The last that a page is told for sure before it is discarded.
    if (event === "hidden" || event === "pagehide") keep()
    if (event === "hidden") return
    watchdog.check()
    occur({ type: event })
  }

  function receive(data: unknown): void {
    watchdog.heard()
    let frame: Frame
    try {
      frame = parse(data as string) as Frame
      // Only changes belong to a transaction, and of the rest only what is derived has data. The type may be any word.
      if ("tx" in frame) return occur({ type: "change", change: frame })
      if ("data" in frame) return listeners.tell("derived", frame)
    } catch (error) {
      return report("frame", `a frame that cannot be read: ${messageOf(error)}`, error)
    }
    answer(frame)
  }

  function answer(message: ServerMessage): void {
    switch (message.type) {
      case "connection_success":
        channels.joined(message.channels, message.user)
        tokens.accepted(message.expires_in)
        watchdog.start(message.heartbeat_seconds * 1_000 + MARGIN_MS)
        return occur({ ...message, type: "welcome" })
      case "checkpoint":
        return occur(message)
      case "subscribed":
        channels.granted(message.request, message.channels)
        filter.granted(message.request)
        if (message.request === joinRequest) return occur({ ...message, type: "joined" })
        occur({ type: "checkpoint", cursor: message.cursor })
        // It may not be wanted any more.
        if (state.kind === "live") settle()
        return
      case "unsubscribed":
        return occur({ type: "checkpoint", cursor: message.cursor })
      case "authenticated":
        return tokens.accepted(message.expires_in)
      case "error": {
        const error = new FeedError("relay", `${message.code}: ${message.message}`)
        if (message.request !== undefined && message.request === joinRequest)
          occur({ type: "join_refused", cause: error.message })
        channels.refused(message.request, error)
        filter.refused(message.request, error)
        return report("relay", error.message)
      }
      case "ping":
        return occur({ type: "alive" })
      case "pong":
        return
    }
  }

  // The caller gets to listen first.
  queueMicrotask(() => {
    const place = options.cursor === undefined ? shelf?.read() : { cursor: options.cursor, ids: [] }
    if (place !== undefined) position.restore(place)
    occur({ type: "start" })
  })

  return {
    get state() {
      return state
    },
    get cursor() {
      return position.cursor
    },
    on: (name, listener) => listeners.add(name, listener),
    subscribe(names) {
      const live = channels.add(names)
      if (state.kind === "live") settle()
      return live
    },
    unsubscribe(names) {
      channels.remove(names)
      if (state.kind === "live") settle()
    },
    filter(fields) {
      const holds = filter.amend(fields)
      if (state.kind === "live") settle()
      return holds
    },
    close() {
      // Before whatever waits, so that nothing is told any more.
      waiting.unshift({ type: "close" })
      proceed()
    },
  }
}

/** http and a bare host are taken for what is meant. */
function relayUrl(text: string): URL {
  const url = new URL(text, (globalThis as { location?: { href: string } }).location?.href)
  url.protocol = url.protocol.replace(/^http/, "ws")
  if (url.pathname === "/") url.pathname = "/ws"
  return url
}

function pageStorage(): StorageLike {
  const { sessionStorage } = globalThis as { sessionStorage?: StorageLike }
  if (sessionStorage === undefined) throw new Error("there is no sessionStorage here")
  return sessionStorage
}
