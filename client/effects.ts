/** Carries out the machine's effects: on the token, the connection, the position, the listeners and the caller's hook. */

import type { Channels } from "./channels.ts"
import type { Connection } from "./connection.ts"
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
import type { PositionStore } from "./storage.ts"
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
  open(token: string, cursor: string | undefined, dispatch: Dispatch): Connection
}

export class Effects implements EffectRunner {
  readonly #deps: EffectsDeps
  #connection: Connection | undefined
  /** Numbers the requests for a token: an answer to any but the last comes too late. */
  #asked = 0
  #load: AbortController | undefined
  #restored = false

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
        return this.savePosition()
      case "emit_resync":
        return emitter.emit("resync", { reason: effect.reason })
      case "load":
        return this.#startLoad(effect.reason, dispatch)
      case "abort_load":
        return this.#load?.abort()
      case "join":
        return this.#connection?.join(effect.cursor)
      case "reconcile":
        return this.#connection?.startReconciling()
      case "fail":
        return emitter.report(effect.code, effect.cause)
    }
  }

  onState(state: State): void {
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

  /** Begins at the cursor, or else at the stored position. */
  restorePosition(cursor: string | undefined): void {
    const { position, store } = this.#deps
    const saved = cursor === undefined ? store?.read() : { cursor, ids: [] }
    if (saved !== undefined) position.restore(saved)
    this.#restored = true
  }

  savePosition(): void {
    // A feed that is closed before it starts must not erase what it has not read.
    if (this.#restored) this.#deps.store?.write(this.#deps.position.save())
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
      this.#connection = open(token, position.cursor, dispatch)
    } catch (error) {
      dispatch({ type: "unusable", cause: messageOf(error) })
    }
  }

  #deliver(change: ChangeMessage | ApplicationMessage): void {
    const { position, emitter } = this.#deps
    if (!position.take(change.id)) return
    emitter.emit(change.type, change)
    if ("action" in change) emitter.emit("change", change)
  }

  #startLoad(reason: Reason | ReloadReason, dispatch: Dispatch): void {
    const mine = new AbortController()
    this.#load = mine
    // Async, so that a hook that throws at once fails like any other.
    const load = async () => this.#deps.resync?.({ reason, signal: mine.signal })
    load().then(
      (result) => {
        if (!mine.signal.aborted) dispatch({ type: "loaded", cursor: result?.cursor })
      },
      (error) => {
        if (mine.signal.aborted) return
        this.#deps.emitter.report("resync", `the state was not loaded: ${messageOf(error)}`, error)
        dispatch({ type: "load_failed" })
      },
    )
  }

  #close(cause: string): void {
    const { page, channels, filter } = this.#deps
    // The answer of a getToken that is still running comes too late.
    this.#asked++
    page.stop()
    this.savePosition()
    const error = new FeedError("refused", cause)
    channels.close(error)
    filter.close(error)
  }
}
