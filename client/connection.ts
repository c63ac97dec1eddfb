/** One connection to the relay: turns frames into events, and keeps token, channels and filter up to date on it. */

import type { Channels } from "./channels.ts"
import type { Clock } from "./clock.ts"
import type { Emitter } from "./emitter.ts"
import { FeedError, messageOf } from "./error.ts"
import type { Filter } from "./filter.ts"
import type { ApplicationMessage, ChangeMessage, DerivedMessage, ServerMessage } from "./messages.ts"
import type { Dispatch } from "./runtime.ts"
import { openSocket, type Socket, type WebSocketConstructor } from "./socket.ts"
import type { Tokens } from "./token.ts"
import { createWatchdog, type Watchdog } from "./watchdog.ts"

export interface ConnectionDeps {
  url: URL
  WebSocket: WebSocketConstructor
  parse(text: string): unknown
  clock: Clock
  emitter: Emitter
  tokens: Tokens
  channels: Channels
  filter: Filter
}

type Frame = ServerMessage | ChangeMessage | ApplicationMessage | DerivedMessage

/** How much longer than a heartbeat the relay may be silent. */
const MARGIN_MS = 10_000

export class Connection {
  readonly #deps: ConnectionDeps
  readonly #dispatch: Dispatch
  readonly #watchdog: Watchdog
  readonly #socket: Socket
  #requests = 0
  #joinRequest: number | undefined
  #reconciling = false

  /** @throws if no request can have this URL or token. */
  constructor(deps: ConnectionDeps, token: string, cursor: string | undefined, dispatch: Dispatch) {
    this.#deps = deps
    this.#dispatch = dispatch
    this.#watchdog = createWatchdog(deps.clock, () => dispatch({ type: "silent" }))
    const url = new URL(deps.url)
    url.searchParams.set("channels", deps.channels.wanted().join(","))
    deps.filter.addTo(url)
    if (cursor !== undefined) url.searchParams.set("cursor", cursor)
    this.#socket = openSocket(deps.WebSocket, url.href, token, {
      onOpen: () => dispatch({ type: "alive" }),
      onFrame: (data) => this.#receive(data),
      onEnd: (code, cause) => dispatch({ type: "ended", code, cause }),
    })
  }

  /** Continues from the cursor of a state that was loaded. */
  join(cursor: string): void {
    this.#joinRequest = this.#send({ type: "subscribe", channels: this.#deps.channels.wanted(), cursor })
  }

  /** From now on the relay is asked for the channels and the filter that the caller wants, whenever they change. */
  startReconciling(): void {
    this.#reconciling = true
    this.reconcile()
  }

  /** The caller wants other channels or another filter. */
  reconcile(): void {
    if (!this.#reconciling) return
    this.#deps.channels.reconcile((type, channels) => this.#send({ type, channels }))
    this.#deps.filter.reconcile((fields) => this.#send({ type: "subscribe", ...fields }))
  }

  /** Looks whether it is dead. */
  check(): void {
    this.#watchdog.check()
  }

  close(graceful: boolean): void {
    this.#socket.close(graceful)
    this.#watchdog.stop()
    this.#deps.tokens.disconnected()
    this.#deps.channels.disconnected()
    this.#deps.filter.disconnected()
  }

  /** @returns the number of the request. */
  #send(message: object): number {
    this.#socket.send({ ...message, request: ++this.#requests })
    return this.#requests
  }

  #receive(data: unknown): void {
    this.#watchdog.reset()
    let frame: Frame
    try {
      frame = this.#deps.parse(data as string) as Frame
      // The type may be any word. Only changes belong to a transaction, and of the rest only derived messages have data.
      if ("tx" in frame) return this.#dispatch({ type: "change", change: frame })
      if ("data" in frame) return this.#deps.emitter.emit("derived", frame)
    } catch (error) {
      return this.#deps.emitter.report("frame", `a frame that cannot be read: ${messageOf(error)}`, error)
    }
    this.#handle(frame)
  }

  #handle(message: ServerMessage): void {
    const { channels, filter } = this.#deps
    switch (message.type) {
      case "connection_success":
        channels.connected(message.channels, message.user)
        this.#renewBefore(message.expires_in)
        this.#watchdog.start(message.heartbeat_seconds * 1_000 + MARGIN_MS)
        return this.#dispatch({ ...message, type: "welcome" })
      case "checkpoint":
        return this.#dispatch(message)
      case "subscribed":
        channels.granted(message.request, message.channels)
        filter.granted(message.request)
        if (message.request === this.#joinRequest) return this.#dispatch({ ...message, type: "joined" })
        this.#dispatch({ type: "checkpoint", cursor: message.cursor })
        // The caller may not want it any more.
        return this.reconcile()
      case "unsubscribed":
        return this.#dispatch({ type: "checkpoint", cursor: message.cursor })
      case "authenticated":
        return this.#renewBefore(message.expires_in)
      case "error":
        return this.#refuse(message)
      case "ping":
        return this.#dispatch({ type: "alive" })
      case "pong":
        return
    }
  }

  #renewBefore(expiresInSeconds: number): void {
    this.#deps.tokens.accepted(expiresInSeconds, (token) => this.#send({ type: "authenticate", token }))
  }

  #refuse({ request, code, message }: ServerMessage & { type: "error" }): void {
    const error = new FeedError("relay", `${code}: ${message}`)
    if (request !== undefined && request === this.#joinRequest)
      this.#dispatch({ type: "join_refused", cause: error.message })
    this.#deps.channels.refused(request, error)
    this.#deps.filter.refused(request, error)
    this.#deps.emitter.report("relay", error.message)
  }
}
