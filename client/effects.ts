/** Carries out the machine's effects: on the token, the connection, the position, the listeners and the caller's hook. */

import type { Channels } from "./channels.ts"
import type { Connection, Start } from "./connection.ts"
import type { Emitter } from "./emitter.ts"
import { FeedError, messageOf } from "./error.ts"
import type { Filter } from "./filter.ts"
import type { ApplicationMessage, ChangeMessage, Reason } from "./messages.ts"
import type { Resync } from "./options.ts"
import type { PageWatch } from "./page.ts"
import type { Position } from "./position.ts"
import type { ReloadReason } from "./reload.ts"
import type { Dispatch, EffectRunner } from "./runtime.ts"
import type { OuterEffect, State } from "./state.ts"
import type { Owner, PositionStore } from "./storage.ts"
import type { Tokens } from "./token.ts"

export interface EffectsDeps {
  tokens: Tokens
  position: Position
  store: PositionStore | undefined
  page: PageWatch
  channels: Channels
  filter: Filter
  emitter: Emitter
  resync: Resync | undefined
  /** @throws if no request can have this token. */
  open(token: string, start: Start, dispatch: Dispatch): Connection
  /** Asks for the reason why there is no connection. */
  diagnose(): Promise<string>
}

/** A table may have any message type; with one of these its changes come as `change` alone. */
const OWN_EVENTS = ["change", "derived", "state", "resync", "channels", "error"]
const BAD_MESSAGE = 4501
const TOO_MANY_CHANNELS = 4505
/** In these there may be something to explain. */
const DISCONNECTED = ["waiting", "offline", "authenticating", "opening"]

export class Effects implements EffectRunner {
  readonly #deps: EffectsDeps
  #connection: Connection | undefined
  /** Numbers the requests for a token: an answer to any but the last comes too late. */
  #asked = 0
  /** The hook that runs. */
  #load: AbortController | undefined
  /** The hook has given something to show, from which the feed cannot go on. */
  #isShowing = false
  #wasRead = false
  #kind: State["kind"] = "idle"

  constructor(deps: EffectsDeps) {
    this.#deps = deps
  }

  run(effect: OuterEffect, dispatch: Dispatch): void {
    const { tokens, position, emitter } = this.#deps
    switch (effect.do) {
      case "get_token":
        return this.#getToken(dispatch)
      case "invalidate_token":
        return tokens.invalidate()
      case "open":
        return this.#open(effect.token, dispatch)
      case "disconnect":
        this.#connection?.close(effect.graceful)
        this.#connection = undefined
        return
      case "deliver":
        return this.#deliver(effect.change)
      case "move":
        position.move(effect.cursor)
        return this.savePosition()
      case "rename":
        return position.rename(effect.cursor)
      case "forget":
        position.forget()
        this.#isShowing = false
        return this.savePosition()
      case "emit_resync":
        return emitter.emit("resync", { reason: effect.reason })
      case "load":
        return this.#startLoad(effect.reason, dispatch)
      case "abort_load":
        return this.#abortLoad()
      case "join":
        return this.#connection?.join(effect.cursor)
      case "reconcile":
        return this.#connection?.startReconciling()
      case "doubt":
        return this.#doubt(effect.code, effect.cause)
      case "explain":
        return void this.#explain(effect)
      case "fail":
        return emitter.report(effect.code, effect.cause)
    }
  }

  /** Whether the caller has nothing to show, and nothing is being loaded. */
  isBlank(): boolean {
    const { position, resync } = this.#deps
    return (
      resync !== undefined && position.cursor === undefined && !this.#isShowing && this.#load === undefined
    )
  }

  onState(state: State): void {
    this.#kind = state.kind
    if (state.kind === "closed") this.#close(state.cause)
    this.#deps.emitter.emit("state", state)
  }

  /** The caller wants other channels or another filter. */
  reconcile(): void {
    this.#connection?.reconcile()
  }

  /** Looks whether the connection is dead. */
  checkConnection(): void {
    this.#connection?.check()
  }

  /** Stores the position, if it is known whose it is. */
  savePosition(): void {
    const { position, store } = this.#deps
    const owner = this.#owner()
    // What has not been read is not written over.
    if (owner !== undefined && this.#wasRead) store?.write(position.save(), owner)
  }

  #owner(): Owner | undefined {
    const { channels, filter } = this.#deps
    const { user } = channels
    return user === undefined ? undefined : { user, channels: channels.held(), filter: filter.text() }
  }

  /** The cursor to begin at: where this feed is, or where the one before the page was loaded again has been. */
  #cursorOf(user: string): string | undefined {
    const { position, store, channels, filter } = this.#deps
    const isNew = position.cursor === undefined && !this.#isShowing && this.#load === undefined
    if (isNew && !this.#wasRead) {
      const saved = store?.read({ user, channels: channels.held(), filter: filter.text() })
      if (saved !== undefined) position.restore(saved)
    }
    this.#wasRead = true
    return position.cursor
  }

  #getToken(dispatch: Dispatch): void {
    const mine = ++this.#asked
    this.#deps.tokens.get().then(
      (token) => {
        if (mine === this.#asked) dispatch({ type: "token", token })
      },
      (error) => {
        if (mine !== this.#asked) return
        const cause = `no token: ${messageOf(error)}`
        this.#deps.emitter.report("token", cause, error)
        dispatch({ type: "token_failed", cause })
      },
    )
  }

  #open(token: string, dispatch: Dispatch): void {
    const { position, open } = this.#deps
    position.reconnect()
    try {
      this.#connection = open(
        token,
        { cursor: position.cursor, of: (user) => this.#cursorOf(user) },
        dispatch,
      )
    } catch (error) {
      dispatch({ type: "unusable", cause: messageOf(error) })
    }
  }

  #deliver(change: ChangeMessage | ApplicationMessage): void {
    const { position, emitter } = this.#deps
    if (!position.take(change.id)) return
    if (!OWN_EVENTS.includes(change.type)) emitter.emit(change.type, change)
    if ("action" in change) emitter.emit("change", change)
  }

  #startLoad(reason: Reason | ReloadReason, dispatch: Dispatch): void {
    this.#abortLoad()
    const mine = new AbortController()
    this.#load = mine
    // Async, so that a hook that throws at once fails like any other.
    const load = async () => this.#deps.resync?.({ reason, signal: mine.signal })
    load().then(
      (result) => {
        if (mine.signal.aborted) return
        this.#load = undefined
        const cursor: unknown = result?.cursor
        this.#isShowing = typeof cursor !== "string"
        dispatch({ type: "loaded", cursor: typeof cursor === "string" ? cursor : undefined })
      },
      (error) => {
        if (mine.signal.aborted) return
        this.#load = undefined
        this.#deps.emitter.report("resync", `the state was not loaded: ${messageOf(error)}`, error)
        dispatch({ type: "load_failed" })
      },
    )
  }

  #abortLoad(): void {
    this.#load?.abort()
    this.#load = undefined
  }

  #doubt(code: number, cause: string): void {
    const { channels, filter } = this.#deps
    if (code === TOO_MANY_CHANNELS) return this.#connection?.blameChannels(new FeedError("channels", cause))
    if (code === BAD_MESSAGE) filter.doubt()
    channels.askSingly()
  }

  async #explain({ cause, ask }: Extract<OuterEffect, { do: "explain" }>): Promise<void> {
    const { emitter, diagnose } = this.#deps
    if (!ask) return emitter.report("connection", cause)
    const why = await diagnose()
    if (DISCONNECTED.includes(this.#kind)) emitter.report("connection", `${cause}: ${why}`)
  }

  #close(cause: string): void {
    const { page, channels, filter } = this.#deps
    this.#abortLoad()
    // The answer of a getToken that is still running comes too late.
    this.#asked++
    page.stop()
    this.savePosition()
    const error = new FeedError("refused", cause)
    channels.close(error)
    filter.close(error)
  }
}
