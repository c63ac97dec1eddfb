/** The states of the machine, the events that change them, and the effects that follow. */

import type { ApplicationMessage, ChangeMessage, Reason } from "./messages.ts"
import type { ReloadReason } from "./reload.ts"

export interface Tries {
  /** Attempts to connect since the client was last live for a while. */
  attempt: number
  /** The relay refused the last token that getToken gave. */
  refused: boolean
}

/** What can be shown to a person. */
export interface Shown {
  /** Why it is in this state, in words. */
  cause: string
  /** Since when, as Date.now() gives it. */
  since: number
}

export interface Stale {
  reason: Reason | ReloadReason
  /** Where the live changes begin; undefined: at the position. */
  from: string | undefined
  /** How often the hook failed. */
  failures: number
}

/** A state that a transition has led to; since when it lasts is added to it. */
export type Next = Tries &
  Pick<Shown, "cause"> &
  (
    | { kind: "idle" }
    /** Waits for a token. */
    | { kind: "authenticating" }
    /** Waits for connection_success. */
    | { kind: "opening" }
    /** Changes since the cursor are coming. */
    | { kind: "catching_up" }
    | { kind: "live" }
    /** The caller's state may be wrong and will be loaded in a moment. Changes are held back. */
    | ({ kind: "stale" } & Stale)
    /** The caller's hook loads its state. Changes are held back. */
    | ({ kind: "loading"; overflowed: boolean } & Stale)
    /** Waits for the relay to continue from the cursor that was loaded. */
    | ({ kind: "joining" } & Stale)
    /** Connects again after a while. */
    | { kind: "waiting"; delayMs: number }
    /** The same, less often: the browser says that there is no network. */
    | { kind: "offline"; delayMs: number }
    /** The browser has put the page away. It connects again when the page is shown. */
    | { kind: "suspended" }
    | { kind: "closed" }
  )
export type State = Next & Shown
export type Kind = State["kind"]
export type In<K extends Kind> = Extract<State, { kind: K }>

/** Whether the relay can send what lies between a cursor and now. */
export interface Recovery {
  cursor: string
  recovered: boolean
  replayed: number | null
  reason: Reason | null
}

export type Event =
  | { type: "start" }
  | { type: "token"; token: string }
  | { type: "token_failed"; cause: string }
  /** No request can have this URL or token. */
  | { type: "unusable"; cause: string }
  | ({ type: "welcome" } & Recovery)
  | { type: "change"; change: ChangeMessage | ApplicationMessage }
  | { type: "checkpoint"; cursor: string; replayed?: number | undefined }
  | { type: "ended"; code: number; cause: string }
  /** The relay is there, though it has not answered yet. */
  | { type: "alive" }
  /** Nothing has come for too long. */
  | { type: "silent" }
  /** The state's timer rings. */
  | { type: "timer" }
  | { type: "loaded"; cursor: string | undefined }
  | { type: "load_failed" }
  /** Too many changes are held back. */
  | { type: "overflow" }
  | ({ type: "joined" } & Recovery)
  | { type: "join_refused"; cause: string }
  /** A channel that was lost is back, without what happened in it meanwhile. */
  | { type: "regained" }
  /** The token is of another user than those before. */
  | { type: "other_user" }
  | { type: "online" }
  | { type: "offline" }
  | { type: "visible" }
  | { type: "pagehide" }
  | { type: "pageshow" }
  | { type: "close" }
export type Occurs<E extends Event["type"]> = Extract<Event, { type: E }>

/** Effects on the machine itself. */
export type InnerEffect =
  /** There is one timer at most: a new state cancels that of the state before. */
  | { do: "timer"; ms: number }
  | { do: "hold"; event: Occurs<"change"> | Occurs<"checkpoint"> }
  /** The held events happen now, before any that wait. */
  | { do: "release" }
  /** Drops the held events. */
  | { do: "discard" }

/** Effects on everything else. */
export type OuterEffect =
  | { do: "get_token" }
  /** The relay refuses the token that is kept. */
  | { do: "invalidate_token" }
  | { do: "open"; token: string }
  /** Not gracefully where the relay may be gone and answer no close. */
  | { do: "disconnect"; graceful: boolean }
  | { do: "deliver"; change: ChangeMessage | ApplicationMessage }
  | { do: "move"; cursor: string }
  | { do: "rename"; cursor: string }
  | { do: "forget" }
  | { do: "emit_resync"; reason: Reason | ReloadReason }
  | { do: "load"; reason: Reason | ReloadReason }
  | { do: "abort_load" }
  | { do: "join"; cursor: string }
  /** From now on this connection follows the channels and the filter that the caller wants. */
  | { do: "reconcile" }
  | { do: "fail"; code: "refused" | "resync" | "token" | "connection"; cause: string }
  /** Tells why there is no connection. @param ask the relay has not said it, and is asked by HTTP. */
  | { do: "explain"; cause: string; ask: boolean }
  /** The relay does not like what a connection asks for: it is asked for in another way. */
  | { do: "doubt"; code: number; cause: string }

export type Effect = InnerEffect | OuterEffect

/** What holds when an event happens. */
export interface Facts {
  /** Random, from 0 to 1. */
  chance: number
  online: boolean
  visible: boolean
  /** Whether the caller has a hook that loads its state. */
  hook: boolean
  /** Whether another token can be fetched. */
  renewable: boolean
  /** Whether the token in use came from getToken and was never accepted. */
  fresh: boolean
  /** Whether the caller has nothing to show yet, and a hook to load it that does not run. */
  blank: boolean
  /** As Date.now() gives it. */
  now: number
}
