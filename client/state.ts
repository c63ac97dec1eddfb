/** What the client can be in, what happens to it, and what is then to be done: the words of the machine. */

import type { ApplicationMessage, ChangeMessage, Reason } from "./messages.ts"

export interface Tries {
  /** Attempts to connect since it was last live for a while. */
  attempt: number
  /** The last token was refused. */
  refused: boolean
}

export interface Stale {
  reason: Reason
  /** Live from here on. */
  from: string
  /** Attempts to load that failed. */
  failures: number
}

export type State = Tries &
  (
    | { kind: "idle" }
    /** Waits for a token. */
    | { kind: "authenticating" }
    /** Waits for connection_success. */
    | { kind: "opening" }
    /** Changes since the cursor are coming. */
    | { kind: "catching_up" }
    | { kind: "live" }
    /** What the caller holds may be wrong; it will be loaded in a moment. Changes are held back. */
    | ({ kind: "stale" } & Stale)
    /** The caller's hook loads it. Changes are held back. */
    | ({ kind: "loading"; overflowed: boolean } & Stale)
    /** Waits until changes come from the cursor that was loaded. */
    | ({ kind: "joining" } & Stale)
    /** Connects again after a while. */
    | { kind: "waiting"; delayMs: number; cause: string }
    /** The same, seldom: the browser says that there is no network. */
    | { kind: "offline"; delayMs: number; cause: string }
    /** The page is put away; it connects again when it is shown. */
    | { kind: "suspended" }
    | { kind: "closed"; cause: string }
  )
export type Kind = State["kind"]
export type In<K extends Kind> = Extract<State, { kind: K }>

/** What the relay says of the way from a cursor to now. */
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
  /** There can be no socket with this URL or token. */
  | { type: "unusable"; cause: string }
  | ({ type: "welcome" } & Recovery)
  | { type: "change"; change: ChangeMessage | ApplicationMessage }
  | { type: "checkpoint"; cursor: string; replayed?: number | undefined }
  | { type: "ended"; code: number; cause: string }
  /** The relay is there, though it has not answered yet. */
  | { type: "alive" }
  /** Nothing was heard for too long. */
  | { type: "silent" }
  /** The time that the state asked for is over. */
  | { type: "timer" }
  | { type: "loaded"; cursor: string | undefined }
  | { type: "load_failed" }
  /** Too much is held back. */
  | { type: "overflow" }
  | ({ type: "joined" } & Recovery)
  | { type: "join_refused"; cause: string }
  | { type: "online" }
  | { type: "offline" }
  | { type: "visible" }
  | { type: "pagehide" }
  | { type: "pageshow" }
  | { type: "close" }
export type Occurs<E extends Event["type"]> = Extract<Event, { type: E }>

export type Effect =
  | { do: "get_token" }
  /** The token is of no use any more. */
  | { do: "spoil_token" }
  | { do: "open"; token: string }
  /** A peer that is gone answers no close. */
  | { do: "hang_up"; politely: boolean }
  /** One timer at most: a new state ends that of the one before. */
  | { do: "timer"; ms: number }
  | { do: "deliver"; change: ChangeMessage | ApplicationMessage }
  | { do: "hold"; event: Occurs<"change"> | Occurs<"checkpoint"> }
  /** What is held happens now. */
  | { do: "release" }
  | { do: "discard" }
  | { do: "move"; cursor: string }
  | { do: "rename"; cursor: string }
  | { do: "forget" }
  | { do: "tell_resync"; reason: Reason }
  | { do: "load"; reason: Reason }
  | { do: "abort_load" }
  | { do: "join"; cursor: string }
  /** The channels may be brought to what is wanted. */
  | { do: "settle_channels" }
  | { do: "fail"; code: "refused" | "resync"; cause: string }

/** What is true when an event happens. */
export interface Facts {
  /** From 0 to 1. */
  chance: number
  online: boolean
  visible: boolean
  /** Whether the caller gave a hook that loads its state. */
  hook: boolean
  /** Whether another token can be had. */
  renewable: boolean
}
