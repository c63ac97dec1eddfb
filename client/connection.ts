/** One connection to the relay: turns frames into events, and keeps the token up to date on it. */

import { addressWith } from "./address.ts"
import type { Channels } from "./channels.ts"
import type { Clock } from "./clock.ts"
import type { Emitter } from "./emitter.ts"
import { messageOf } from "./error.ts"
import type { Filter } from "./filter.ts"
import type { ApplicationMessage, ChangeMessage, DerivedMessage, ServerMessage } from "./messages.ts"
import { Negotiation } from "./negotiation.ts"
import type { Dispatch } from "./runtime.ts"
import { openSocket, type Socket, type WebSocketConstructor } from "./socket.ts"
import type { Tokens } from "./token.ts"
import { createWatchdog, type Watchdog } from "./watchdog.ts"

export interface ConnectionDeps {
  /** The relay's, as `relayAddress` gives it. */
  address: string
  WebSocket: WebSocketConstructor
  /** In place of JSON.parse, for what is delivered. */
  parse: ((text: string) => unknown) | undefined
  clock: Clock
  emitter: Emitter
  tokens: Tokens
  channels: Channels
  filter: Filter
}

/** Where to begin. */
export interface Start {
  /** As it is known before the user is. */
  cursor: string | undefined
  /** Where this user's feed was. */
  of(user: string): string | undefined
}

type Change = ChangeMessage | ApplicationMessage
type Frame = ServerMessage | Change | DerivedMessage

/** How much longer than a heartbeat the relay may be silent. */
const MARGIN_MS = 10_000
/** A frame may have 16 KiB. So many transactions in flight are never gone on from: the state is loaded. */
const LONGEST_CURSOR = 16_000
const sendable = (cursor: string | undefined) =>
  cursor !== undefined && cursor.length <= LONGEST_CURSOR ? cursor : undefined

export class Connection {
  readonly #deps: ConnectionDeps
  readonly #dispatch: Dispatch
  readonly #watchdog: Watchdog
  readonly #socket: Socket
  readonly #negotiation: Negotiation
  readonly #start: Start
  readonly #token: string
  /** Whether the URL could say channels, filter and cursor. What it could not is said by frames. */
  readonly #whole: boolean
  #position = ""
  #renewals = 0
  #renewed = ""

  /** @throws if no request can have this URL or token. */
  constructor(deps: ConnectionDeps, token: string, start: Start, dispatch: Dispatch) {
    const { address, channels, filter, clock } = deps
    this.#deps = deps
    this.#token = token
    this.#start = start
    this.#dispatch = dispatch
    this.#watchdog = createWatchdog(clock, () => dispatch({ type: "silent" }))
    this.#negotiation = new Negotiation({
      channels,
      filter,
      clock,
      dispatch,
      send: (message) => this.#socket.send(message),
    })
    const [listed, fields] = [channels.forUrl(), filter.forUrl()]
    const whole =
      listed && fields && addressWith(address, { channels: listed, ...fields, cursor: start.cursor })
    this.#whole = whole !== undefined
    const url = whole ?? addressWith(address, { channels: channels.leastForUrl() }) ?? address
    this.#socket = openSocket(deps.WebSocket, url, token, {
      onOpen: () => dispatch({ type: "alive" }),
      onFrame: (data) => this.#receive(data),
      // Of all users only its own may have this channel.
      onEnd: (code, cause) =>
        dispatch(
          channels.user !== undefined && cause.endsWith(`not allowed: user:${channels.user}`)
            ? { type: "other_user" }
            : { type: "ended", code, cause },
        ),
    })
  }

  /** Continues from the cursor of a state that was loaded. */
  join(cursor: string): void {
    this.#negotiation.enter("joined", sendable(cursor), this.#position)
  }

  /** From now on the relay is asked for the channels and the filter that the caller wants, whenever they change. */
  startReconciling(): void {
    this.#negotiation.follow()
  }

  /** The caller wants other channels or another filter. */
  reconcile(): void {
    this.#negotiation.proceed()
  }

  /** Looks whether it is dead. */
  check(): void {
    this.#watchdog.check()
  }

  /** The relay ended it because of its channels. */
  blameChannels(error: Error): void {
    this.#deps.channels.tooMany(this.#negotiation.stop(), error)
  }

  close(graceful: boolean): void {
    this.#socket.close(graceful)
    this.#watchdog.stop()
    this.#negotiation.stop()
    this.#deps.tokens.disconnected()
  }

  /** Never throws: the caller's parser and listeners are not the socket's concern. */
  #receive(data: unknown): void {
    this.#watchdog.reset()
    try {
      this.#read(String(data))
    } catch (error) {
      this.#unreadable(error)
    }
  }

  #unreadable(error: unknown): void {
    this.#deps.emitter.report("frame", `a frame that cannot be read: ${messageOf(error)}`, error)
  }

  #read(text: string): void {
    const { parse, emitter } = this.#deps
    const frame = JSON.parse(text) as Frame
    // The type may be any word. Only changes belong to a transaction, and of the rest only derived messages have data.
    const isChange = "tx" in frame
    if (!isChange && !("data" in frame)) {
      // The caller's parser may look, but what the feed itself lives by does not depend on it.
      try {
        parse?.(text)
      } catch (error) {
        this.#unreadable(error)
      }
      return this.#handle(frame)
    }
    const shown = parse === undefined ? frame : (parse(text) as typeof frame)
    if (shown.type !== frame.type) throw new TypeError("parse gave something else than the frame")
    if (isChange && "id" in shown && shown.id === frame.id)
      return this.#dispatch({ type: "change", change: shown as Change })
    if (isChange) throw new TypeError("parse gave something else than the change")
    emitter.emit("derived", shown)
  }

  #handle(message: ServerMessage): void {
    const { channels } = this.#deps
    switch (message.type) {
      case "connection_success":
        return this.#welcome(message)
      case "checkpoint":
        return this.#dispatch(message)
      case "subscribed":
        return this.#negotiation.subscribed(message)
      case "unsubscribed":
        return this.#negotiation.unsubscribed(message)
      case "authenticated":
        if (message.user !== channels.user) return this.#dispatch({ type: "other_user" })
        channels.renewed(message.channels, this.#renewed)
        this.#renewBefore(this.#renewed, message.expires_in)
        return this.#negotiation.proceed()
      case "error":
        return this.#refuse(message)
      case "ping":
        return this.#dispatch({ type: "alive" })
      case "pong":
        return
    }
  }

  #welcome(message: Extract<ServerMessage, { type: "connection_success" }>): void {
    const { channels, filter } = this.#deps
    const { user, cursor, expires_in, heartbeat_seconds } = message
    if (channels.user !== undefined && channels.user !== user) return this.#dispatch({ type: "other_user" })
    this.#position = cursor
    this.#negotiation.regained = channels.connected(message.channels, user, this.#token)
    filter.connected(this.#whole)
    this.#renewBefore(this.#token, expires_in)
    this.#watchdog.start(heartbeat_seconds * 1_000 + MARGIN_MS)
    const since = sendable(this.#start.of(user))
    if (!this.#whole || since !== this.#start.cursor) return this.#negotiation.enter("welcome", since, cursor)
    this.#dispatch({ ...message, type: "welcome" })
    this.#negotiation.settle()
  }

  #renewBefore(token: string, expiresInSeconds: number): void {
    this.#deps.tokens.accepted(token, expiresInSeconds, (fresh) => {
      this.#renewed = fresh
      this.#socket.send({ type: "authenticate", token: fresh, request: `renewal ${++this.#renewals}` })
    })
  }

  #refuse(message: Extract<ServerMessage, { type: "error" }>): void {
    const { code, request } = message
    if (code === "other_user") return this.#dispatch({ type: "other_user" })
    if (request !== undefined && request === `renewal ${this.#renewals}`) this.#deps.tokens.postponed()
    const isKnown = this.#negotiation.refused(message)
    if (!isKnown) this.#deps.emitter.report("relay", `${code}: ${message.message}`)
  }
}
