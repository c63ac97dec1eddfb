/** What a caller passes to `connect`, and the feed that it gets. */

import type { FilterFields } from "./filter.ts"
import type { Reason } from "./messages.ts"
import type { Page } from "./page.ts"
import type { ReloadReason } from "./reload.ts"
import type { WebSocketConstructor } from "./socket.ts"
import type { State } from "./state.ts"
import type { StorageLike } from "./storage.ts"
import type { AnyRows, EventName, EventOf, Rows } from "./types.ts"

/** Loads the caller's state. Returns the cursor that was read with it, if there is one. */
export type Resync = (why: {
  reason: Reason | ReloadReason
  signal: AbortSignal
}) => Promise<{ cursor: string } | undefined>

export interface Options extends FilterFields {
  /** The relay, such as `wss://relay.example.org/ws`. */
  url: string
  /** One token for as long as the feed lives; otherwise pass `getToken`. */
  token?: string | undefined
  /** Called when a token is needed, and for another one before it expires. Never while it has not answered yet. */
  getToken?: (() => string | Promise<string>) | undefined
  /** `election_updates` by default. */
  channels?: readonly string[] | undefined
  /** The position of the caller's state, from relay.cursor(). Takes precedence over `storage`. */
  cursor?: string | undefined
  /**
   * Called whenever the caller's state has to be loaded: at the start if there is no cursor, and also where the relay
   * cannot be reached, so that there is something to show.
   */
  resync?: Resync | undefined
  /** Keeps the position over a reload of the page. `true` means sessionStorage. */
  storage?: true | StorageLike | undefined
  /** By default made of the relay, the user, the channels and the filter. */
  storageKey?: string | undefined
  /** Parses what is delivered, in place of JSON.parse. For numbers that a double cannot hold. */
  parse?: ((text: string) => unknown) | undefined
  /** Needed where there is none: that of the package ws. */
  WebSocket?: WebSocketConstructor | undefined
  /** In place of this page's `window`, `document` and `navigator`. */
  page?: Page | undefined
}

export interface Feed<R extends Rows = AnyRows> {
  readonly state: State
  /** Everything up to it was delivered. */
  readonly cursor: string | undefined
  /** @returns what removes the listener. */
  on<Name extends EventName<R>>(name: Name, listener: (value: EventOf<R, Name>) => void): () => void
  /** Resolves when the channels are live. Rejects if the relay refuses one; what was asked for before goes on. */
  subscribe(channels: readonly string[]): Promise<void>
  unsubscribe(channels: readonly string[]): void
  /**
   * Changes the filter. Fields that are left out stay, null removes them. Resolves when the filter is in force. Rejects
   * if the relay refuses it; the one before then stays in force.
   */
  filter(fields: FilterFields): Promise<void>
  /** Closes the feed for good. */
  close(): void
}
