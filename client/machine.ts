/**
 * The client's states, and what takes it from one to another. Pure: an event and the facts of the moment come in,
 * the next state and what is to be done come out.
 *
 *                        +-----------------------------------------------+
 *                        v                                               |
 *   idle -> authenticating -> opening -> catching_up -> live      waiting, offline, suspended
 *                                |            ^           ^              ^
 *                                v            |           |              |
 *                             stale <-> loading -> joining +      any of those with a socket
 */

import { backoff, idly, spread } from "./backoff.ts"
import type { Reason } from "./messages.ts"
import type { Effect, Event, Facts, In, Kind, Occurs, Recovery, Stale, State, Tries } from "./state.ts"

type Step = readonly [State, readonly Effect[]]
type Row<K extends Kind> = {
  [E in Event["type"]]?: (state: In<K>, event: Occurs<E>, facts: Facts) => Step
}

/** For a token, and for a socket. */
const ANSWER_MS = 15_000
/** For connection_success, which a long replay keeps waiting: longer than a heartbeat. */
const PATIENCE_MS = 45_000
/** A connection that was live for so long was a good one. */
const STABLE_MS = 10_000
/** These closings hit every client at once: going away, service restart, drain, cannot continue. */
const SHARED_CODES = [1001, 1012, 4000, 4010]
/** So do these reasons to load. */
const SHARED_REASONS: readonly Reason[] = ["lineage", "too_old", "ahead"]
const INVALID_TOKEN = 4500
const TOKEN_EXPIRED = 4005

/** What is not in a row does not change anything. */
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
    welcome: enter,
    unusable: fail,
    alive: bePatient,
    ended: end,
    timer: giveUp,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  catching_up: {
    change: deliver,
    checkpoint: advance,
    ended: end,
    silent: connect,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  live: {
    change: deliver,
    checkpoint: advance,
    timer: prove,
    ended: end,
    silent: connect,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  stale: {
    change: hold,
    checkpoint: hold,
    overflow: discard,
    timer: load,
    ended: end,
    silent: connect,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  loading: {
    change: holdWhileLoading,
    checkpoint: holdWhileLoading,
    overflow: overflow,
    loaded: takeUp,
    load_failed: loadAgain,
    ended: end,
    silent: connect,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
  },
  joining: {
    joined: join,
    join_refused: retry,
    ended: end,
    silent: connect,
    offline: goOffline,
    pagehide: suspend,
    close: stop,
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

/** What happens in a state when an event occurs. */
export function transition(state: State, event: Event, facts: Facts): Step {
  const row = TABLE[state.kind] as Record<string, ((...args: [State, Event, Facts]) => Step) | undefined>
  return row[event.type]?.(state, event, facts) ?? [state, []]
}

export const INITIAL: State = { kind: "idle", attempt: 0, refused: false }

const tries = ({ attempt, refused }: State): Tries => ({ attempt, refused })
const timer = (ms: number): Effect => ({ do: "timer", ms })
const staleness = ({ reason, from, failures }: Stale): Stale => ({ reason, from, failures })

/** What a state leaves behind has to be put away. */
function leave(state: State, politely = false): Effect[] {
  const hangUp: Effect = { do: "hang_up", politely }
  switch (state.kind) {
    case "opening":
    case "catching_up":
    case "live":
    case "joining":
      return [hangUp]
    case "stale":
      return [hangUp, { do: "discard" }]
    case "loading":
      return [hangUp, { do: "abort_load" }, { do: "discard" }]
    case "idle":
    case "authenticating":
    case "waiting":
    case "offline":
    case "suspended":
    case "closed":
      return []
  }
}

// ------------------------------------------------------------------------------------------- to a connection

function connect(state: State): Step {
  return [
    { kind: "authenticating", ...tries(state) },
    [...leave(state), { do: "get_token" }, timer(ANSWER_MS)],
  ]
}

function open(state: State, { token }: Occurs<"token">): Step {
  return [{ kind: "opening", ...tries(state) }, [{ do: "open", token }, timer(ANSWER_MS)]]
}

function bePatient(state: In<"opening">): Step {
  return [{ ...state }, [timer(PATIENCE_MS)]]
}

function enter(state: In<"opening">, event: Occurs<"welcome">, facts: Facts): Step {
  const accepted = { attempt: state.attempt, refused: false }
  if (event.recovered) return follow(accepted, event)
  const reason = event.reason ?? "no_cursor"
  const told: Effect = { do: "tell_resync", reason }
  if (!facts.hook) return goLive(accepted, [told, { do: "move", cursor: event.cursor }])
  const delay = SHARED_REASONS.includes(reason) ? spread(facts.chance) : 0
  return [
    { kind: "stale", ...accepted, reason, from: event.cursor, failures: 0 },
    [told, { do: "forget" }, timer(delay)],
  ]
}

/** The relay goes on from the client's place. */
function follow(accepted: Tries, { cursor, replayed }: Recovery): Step {
  const here: Effect = { do: "rename", cursor }
  return replayed === 0 ? goLive(accepted, [here]) : [{ kind: "catching_up", ...accepted }, [here]]
}

function goLive(accepted: Tries, before: readonly Effect[]): Step {
  return [{ kind: "live", ...accepted }, [...before, timer(STABLE_MS), { do: "settle_channels" }]]
}

// ------------------------------------------------------------------------------------------- with a connection

function deliver(state: State, { change }: Occurs<"change">): Step {
  return [state, [{ do: "deliver", change }]]
}

function advance(state: State, { cursor, replayed }: Occurs<"checkpoint">): Step {
  const moved: Effect = { do: "move", cursor }
  return state.kind === "catching_up" && replayed !== undefined
    ? goLive(tries(state), [moved])
    : [state, [moved]]
}

function prove(state: In<"live">): Step {
  return [{ ...state, attempt: 0 }, []]
}

// ------------------------------------------------------------------------------------------- loading the state anew

function hold(state: State, event: Occurs<"change"> | Occurs<"checkpoint">): Step {
  return [state, [{ do: "hold", event }]]
}

function holdWhileLoading(state: In<"loading">, event: Occurs<"change"> | Occurs<"checkpoint">): Step {
  return state.overflowed ? [state, []] : hold(state, event)
}

/** What was held before loading begins is in what will be loaded. */
function discard(state: In<"stale">): Step {
  return [state, [{ do: "discard" }]]
}

function overflow(state: In<"loading">): Step {
  return [{ ...state, overflowed: true }, [{ do: "discard" }]]
}

function load(state: In<"stale">): Step {
  return [
    { kind: "loading", ...tries(state), ...staleness(state), overflowed: false },
    [{ do: "load", reason: state.reason }],
  ]
}

function takeUp(state: In<"loading">, { cursor }: Occurs<"loaded">, facts: Facts): Step {
  if (cursor !== undefined) {
    return [
      { kind: "joining", ...tries(state), ...staleness(state) },
      [{ do: "discard" }, { do: "move", cursor }, { do: "join", cursor }],
    ]
  }
  if (!state.overflowed) return goLive(tries(state), [{ do: "move", cursor: state.from }, { do: "release" }])
  const [next, effects] = loadAgain(state, { type: "load_failed" }, facts)
  return [next, [...effects, { do: "fail", code: "resync", cause: "too much happened while it was loaded" }]]
}

function loadAgain(state: In<"loading" | "joining">, _event: unknown, facts: Facts): Step {
  return [
    { kind: "stale", ...tries(state), ...staleness(state), failures: state.failures + 1 },
    [timer(backoff(state.failures, facts.chance))],
  ]
}

function join(state: In<"joining">, event: Occurs<"joined">, facts: Facts): Step {
  if (event.recovered) return follow(tries(state), event)
  const reason = event.reason ?? "no_cursor"
  const [next, effects] = loadAgain({ ...state, reason, from: event.cursor }, event, facts)
  const cause = `the cursor that was loaded cannot be continued (${reason})`
  return [next, [{ do: "forget" }, ...effects, { do: "fail", code: "resync", cause }]]
}

// ------------------------------------------------------------------------------------------- without a connection

function giveUp(state: State, _event: unknown, facts: Facts): Step {
  return retry(state, { cause: "no answer" }, facts)
}

function retry(state: State, { cause }: { cause: string }, facts: Facts): Step {
  return wait(state, cause, backoff(state.attempt, facts.chance), facts)
}

/** Patience where the network is away or nobody looks. */
function wait(state: State, cause: string, delay: number, facts: Facts): Step {
  const delayMs = facts.online && facts.visible ? delay : idly(facts.chance)
  const next = { ...tries(state), attempt: state.attempt + 1, delayMs, cause }
  return [{ kind: facts.online ? "waiting" : "offline", ...next }, [...leave(state), timer(delayMs)]]
}

function end(state: State, { code, cause }: Occurs<"ended">, facts: Facts): Step {
  if (code === INVALID_TOKEN || code === TOKEN_EXPIRED) {
    if (!facts.renewable || (code === INVALID_TOKEN && state.refused)) return fail(state, { cause })
    const [next, effects] = retry(
      { ...state, refused: code === INVALID_TOKEN || state.refused },
      { cause },
      facts,
    )
    return [next, [...effects, { do: "spoil_token" }]]
  }
  if (code >= 4500 && code < 5000) return fail(state, { cause })
  const shared = SHARED_CODES.includes(code) && state.attempt === 0
  return wait(state, cause, shared ? spread(facts.chance) : backoff(state.attempt, facts.chance), facts)
}

function goOffline(state: State, _event: unknown, facts: Facts): Step {
  return wait(state, "the browser is offline", idly(facts.chance), { ...facts, online: false })
}

function suspend(state: State): Step {
  return [{ kind: "suspended", ...tries(state) }, leave(state, true)]
}

function fail(state: State, { cause }: { cause: string }): Step {
  return shut(state, cause, { do: "fail", code: "refused", cause })
}

function stop(state: State): Step {
  return shut(state, "closed by the caller")
}

function shut(state: State, cause: string, ...effects: Effect[]): Step {
  return [{ kind: "closed", ...tries(state), cause }, [...leave(state, true), ...effects]]
}
