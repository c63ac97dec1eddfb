/** Follows a relay: each change once, through lost connections, or word that the state has to be loaded again. */

import { httpAddress, relayAddress } from "./address.ts"
import { createChannels } from "./channels.ts"
import { systemClock } from "./clock.ts"
import { Connection } from "./connection.ts"
import { diagnose } from "./diagnosis.ts"
import { Effects } from "./effects.ts"
import { createEmitter, type Emitter } from "./emitter.ts"
import { messageOf } from "./error.ts"
import { createFilter } from "./filter.ts"
import type { Feed, Options } from "./options.ts"
import { createPageWatch, thisPage } from "./page.ts"
import { Position } from "./position.ts"
import { createRuntime } from "./runtime.ts"
import type { WebSocketConstructor } from "./socket.ts"
import { createPositionStore, type PositionStore, sessionStorageHere } from "./storage.ts"
import { createTokens } from "./token.ts"
import type { AnyRows, Rows } from "./types.ts"

// A package has one door: what a program may import, and every type that it then meets.
export { FeedError, type FeedErrorCode } from "./error.ts"
export type { FilterFields, Tests } from "./filter.ts"
export type { ApplicationMessage, ChangeMessage, DerivedMessage, Reason, Tx } from "./messages.ts"
export type { Feed, Options, Resync } from "./options.ts"
export type { Page } from "./page.ts"
export type { ReloadReason } from "./reload.ts"
export type { WebSocketConstructor, WebSocketLike } from "./socket.ts"
export type { Kind, Next, Shown, Stale, State, Tries } from "./state.ts"
export type { StorageLike } from "./storage.ts"
export type { AnyRows, Change, ChangeOf, EventName, EventOf, FeedEvents, Rows } from "./types.ts"

const DEFAULT_CHANNEL = "election_updates"

/**
 * Connects, and stays connected until the caller closes the feed or the relay refuses it.
 * @typeParam R the rows by change type, such as `{ voting_update: Vote }`.
 */
export function connect<R extends Rows = AnyRows>(options: Options): Feed<R> {
  const WebSocket = options.WebSocket ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket
  if (WebSocket === undefined) throw new TypeError("there is no WebSocket here: pass that of the package ws")
  const { token, getToken, resync, parse } = options
  if (token === undefined && getToken === undefined) throw new TypeError("a token or getToken is needed")
  const address = relayAddress(options.url)

  const clock = systemClock
  const emitter = createEmitter()
  const start = options.channels?.length ? options.channels : [DEFAULT_CHANNEL]
  const channels = createChannels({
    start,
    onDenied(denied, lost, cause) {
      if (lost.length > 0)
        emitter.report(
          "channels",
          `no changes come of ${lost.join(", ")} any more, until a token allows it: ${cause}`,
        )
      emitter.emit("channels", { denied })
    },
  })
  const filter = createFilter(options)
  const position = new Position()
  if (options.cursor !== undefined) position.restore({ cursor: options.cursor, ids: [] })
  const page = createPageWatch(options.page ?? thisPage())
  const onFailure = (error: unknown) => emitter.report("token", `no token: ${messageOf(error)}`, error)
  const tokens = createTokens({ token, getToken, clock, onFailure })
  const parts = { clock, emitter, tokens, channels, filter }
  const effects = new Effects({
    ...parts,
    position,
    store: storeOf(options, [address.replace(/\?.*/, ""), start, filter.text()], emitter),
    page,
    resync,
    open: (...args) => new Connection({ ...parts, address, WebSocket, parse }, ...args),
    diagnose: () => diagnose(httpAddress(address), clock),
  })
  const facts = () => ({
    chance: Math.random(),
    online: page.online(),
    visible: page.visible(),
    hook: resync !== undefined,
    renewable: getToken !== undefined,
    fresh: tokens.isFresh(),
    blank: effects.isBlank(),
    now: clock.wall(),
  })
  const runtime = createRuntime({ clock, facts, effects })

  page.start((event) => {
    // The last event that a page is sure to get before it is discarded.
    if (event === "hidden" || event === "pagehide") effects.savePosition()
    if (event === "hidden") return
    effects.checkConnection()
    runtime.dispatch({ type: event })
  })
  // The caller adds its listeners first.
  void Promise.resolve().then(() => runtime.dispatch({ type: "start" }))

  return {
    get state() {
      return runtime.state
    },
    get cursor() {
      return position.cursor
    },
    on: emitter.on,
    subscribe(names) {
      const live = channels.add(names)
      effects.reconcile()
      return live
    },
    unsubscribe(names) {
      channels.remove(names)
      effects.reconcile()
    },
    filter(fields) {
      const inForce = filter.amend(fields)
      effects.reconcile()
      return inForce
    },
    close: runtime.close,
  }
}

/** @param about what a place belongs to, beside its user. */
function storeOf(
  { storage, storageKey }: Options,
  about: unknown[],
  emitter: Emitter,
): PositionStore | undefined {
  return (
    storage &&
    createPositionStore({
      open: storage === true ? sessionStorageHere : () => storage,
      key: (user) => storageKey ?? `commitcast:${JSON.stringify([user, ...about])}`,
      onFailure: (error) =>
        emitter.report("storage", `the position is not stored: ${messageOf(error)}`, error),
    })
  )
}
