/**
 * The client's state machine. Pure: a state, an event and the facts of the moment come in, the next state and its
 * effects come out.
 *
 *                        +-----------------------------------------------+
 *                        v                                               |
 *   idle -> authenticating -> opening -> catching_up -> live      waiting, offline, suspended
 *                                |            ^           ^              ^
 *                                v            |           |              |
 *                             stale <-> loading -> joining +      any of those with a socket
 *
 * From catching_up and live a change that cannot be applied leads to stale.
 */

import { end, endUser, giveUp, goOffline, reject, retry, retryToken, stop, suspend } from "./endings.ts"
import type { Effect, Event, Facts, In, Kind, Occurs, State } from "./state.ts"
import type { Step } from "./step.ts"
import {
  adopt,
  advance,
  connect,
  deliver,
  discard,
  hold,
  holdWhileLoading,
  join,
  load,
  loadAgain,
  open,
  overflow,
  regain,
  resetAttempts,
  show,
  waitForToken,
  waitLonger,
  welcome,
} from "./transitions.ts"

type Row<K extends Kind> = {
  [E in Event["type"]]?: (state: In<K>, event: Occurs<E>, facts: Facts) => Step
}

/** What each state with an accepted connection has in common. */
const CONNECTED = {
  ended: end,
  other_user: endUser,
  silent: connect,
  offline: goOffline,
  pagehide: suspend,
  close: stop,
}

/** An event that is not in the row of a state changes nothing. */
const TABLE: { [K in Kind]: Row<K> } = {
  idle: {
    start: connect,
    close: stop,
  },
  authenticating: {
    token: open,
    token_failed: retryToken,
    timer: waitForToken,
    loaded: show,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  opening: {
    welcome: welcome,
    unusable: reject,
    join_refused: retry,
    other_user: endUser,
    loaded: show,
    alive: waitLonger,
    ended: end,
    timer: giveUp,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  catching_up: {
    change: deliver,
    checkpoint: advance,
    regained: regain,
    ...CONNECTED,
  },
  live: {
    change: deliver,
    checkpoint: advance,
    regained: regain,
    timer: resetAttempts,
    ...CONNECTED,
  },
  stale: {
    change: hold,
    checkpoint: hold,
    overflow: discard,
    timer: load,
    ...CONNECTED,
  },
  loading: {
    change: holdWhileLoading,
    checkpoint: holdWhileLoading,
    overflow: overflow,
    // What is loaded may have been read before.
    regained: overflow,
    loaded: adopt,
    load_failed: loadAgain,
    ...CONNECTED,
  },
  joining: {
    joined: join,
    join_refused: retry,
    ...CONNECTED,
  },
  waiting: {
    loaded: show,
    timer: connect,
    online: connect,
    visible: connect,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  offline: {
    loaded: show,
    timer: connect,
    online: connect,
    pagehide: suspend,
    close: stop,
  },
  suspended: {
    pageshow: connect,
    close: stop,
  },
  closed: {},
}

export const INITIAL: State = { kind: "idle", attempt: 0, refused: false, cause: "not started yet", since: 0 }

/** @returns the next state, and the effects to run in their order. */
export function transition(state: State, event: Event, facts: Facts): readonly [State, readonly Effect[]] {
  const row = TABLE[state.kind] as Record<string, ((...args: [State, Event, Facts]) => Step) | undefined>
  const [next, effects] = row[event.type]?.(state, event, facts) ?? [state, []]
  if (next === state) return [state, effects]
  return [{ ...next, since: next.kind === state.kind ? state.since : facts.now }, effects]
}
