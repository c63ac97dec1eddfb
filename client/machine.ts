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

import type { Event, Facts, In, Kind, Occurs, State } from "./state.ts"
import {
  adopt,
  advance,
  connect,
  deliver,
  discard,
  end,
  fail,
  giveUp,
  goOffline,
  hold,
  holdWhileLoading,
  join,
  load,
  loadAgain,
  open,
  overflow,
  resetAttempts,
  retry,
  type Step,
  stop,
  suspend,
  waitLonger,
  welcome,
} from "./transitions.ts"

type Row<K extends Kind> = {
  [E in Event["type"]]?: (state: In<K>, event: Occurs<E>, facts: Facts) => Step
}

/** What each state with an accepted connection has in common. */
const CONNECTED = {
  ended: end,
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
    token_failed: retry,
    timer: giveUp,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  opening: {
    welcome: welcome,
    unusable: fail,
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
    ...CONNECTED,
  },
  live: {
    change: deliver,
    checkpoint: advance,
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
    timer: connect,
    online: connect,
    visible: connect,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  offline: {
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

export const INITIAL: State = { kind: "idle", attempt: 0, refused: false }

/** @returns the next state, and the effects to run in their order. */
export function transition(state: State, event: Event, facts: Facts): Step {
  const row = TABLE[state.kind] as Record<string, ((...args: [State, Event, Facts]) => Step) | undefined>
  return row[event.type]?.(state, event, facts) ?? [state, []]
}
