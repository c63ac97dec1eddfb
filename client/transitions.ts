/** The transitions of the machine: each takes a state and an event, and returns the next state and the effects. Pure. */

import { backoff, idly, spread } from "./backoff.ts"
import type { Reason } from "./messages.ts"
import { reloadReason } from "./reload.ts"
import type { Effect, Facts, In, Occurs, Recovery, Stale, State, Tries } from "./state.ts"

export type Step = readonly [State, readonly Effect[]]

/** How long to wait for a token, and for a socket. */
const ANSWER_MS = 15_000
/** How long to wait for connection_success once the relay is there. Longer than a heartbeat: a long replay delays it. */
const PATIENCE_MS = 45_000
/** After being live for so long, the next attempt counts as the first. */
const STABLE_MS = 10_000
/** Close codes that every client gets at once: going away, service restart, drain, cannot continue. */
const SHARED_CODES = [1001, 1012, 4000, 4010]
/** Reasons to load that every client has at once. */
const SHARED_REASONS: readonly Reason[] = ["lineage", "too_old", "ahead"]
const INVALID_TOKEN = 4500
const TOKEN_EXPIRED = 4005

const tries = ({ attempt, refused }: State): Tries => ({ attempt, refused })
const timer = (ms: number): Effect => ({ do: "timer", ms })
const staleness = ({ reason, from, failures }: Stale): Stale => ({ reason, from, failures })

/** Cleans up what a state holds. */
function leave(state: State, graceful = false): Effect[] {
  const disconnect: Effect = { do: "disconnect", graceful }
  switch (state.kind) {
    case "opening":
    case "catching_up":
    case "live":
    case "joining":
      return [disconnect]
    case "stale":
      return [disconnect, { do: "discard" }]
    case "loading":
      return [disconnect, { do: "abort_load" }, { do: "discard" }]
    case "idle":
    case "authenticating":
    case "waiting":
    case "offline":
    case "suspended":
    case "closed":
      return []
  }
}

// ------------------------------------------------------------------------------------------- connecting

export function connect(state: State): Step {
  return [
    { kind: "authenticating", ...tries(state) },
    [...leave(state), { do: "get_token" }, timer(ANSWER_MS)],
  ]
}

export function open(state: State, { token }: Occurs<"token">): Step {
  return [{ kind: "opening", ...tries(state) }, [{ do: "open", token }, timer(ANSWER_MS)]]
}

export function waitLonger(state: In<"opening">): Step {
  return [{ ...state }, [timer(PATIENCE_MS)]]
}

export function welcome(state: In<"opening">, event: Occurs<"welcome">, facts: Facts): Step {
  const accepted = { attempt: state.attempt, refused: false }
  if (event.recovered) return follow(accepted, event)
  const reason = event.reason ?? "no_cursor"
  const notice: Effect = { do: "emit_resync", reason }
  if (!facts.hook) return goLive(accepted, [notice, { do: "move", cursor: event.cursor }])
  const delay = SHARED_REASONS.includes(reason) ? spread(facts.chance) : 0
  return [
    { kind: "stale", ...accepted, reason, from: event.cursor, failures: 0 },
    [notice, { do: "forget" }, timer(delay)],
  ]
}

/** The relay continues from the client's position. */
function follow(accepted: Tries, { cursor, replayed }: Recovery): Step {
  const here: Effect = { do: "rename", cursor }
  return replayed === 0 ? goLive(accepted, [here]) : [{ kind: "catching_up", ...accepted }, [here]]
}

function goLive(accepted: Tries, before: readonly Effect[]): Step {
  return [{ kind: "live", ...accepted }, [...before, timer(STABLE_MS), { do: "reconcile" }]]
}

// ------------------------------------------------------------------------------------------- connected

export function deliver(state: In<"catching_up" | "live">, { change }: Occurs<"change">, facts: Facts): Step {
  const delivery: Effect = { do: "deliver", change }
  const reason = reloadReason(change)
  if (reason === undefined) return [state, [delivery]]
  const notice: Effect = { do: "emit_resync", reason }
  if (!facts.hook) return [state, [delivery, notice]]
  // Every client has got it. The position stays before it, so that a client that does not come to load gets it again.
  return [
    { kind: "stale", ...tries(state), reason, from: undefined, failures: 0 },
    [delivery, notice, timer(spread(facts.chance))],
  ]
}

export function advance(state: State, { cursor, replayed }: Occurs<"checkpoint">): Step {
  const moved: Effect = { do: "move", cursor }
  return state.kind === "catching_up" && replayed !== undefined
    ? goLive(tries(state), [moved])
    : [state, [moved]]
}

export function resetAttempts(state: In<"live">): Step {
  return [{ ...state, attempt: 0 }, []]
}

// ------------------------------------------------------------------------------------------- loading the state

export function hold(state: State, event: Occurs<"change"> | Occurs<"checkpoint">): Step {
  return [state, [{ do: "hold", event }]]
}

export function holdWhileLoading(state: In<"loading">, event: Occurs<"change"> | Occurs<"checkpoint">): Step {
  return state.overflowed ? [state, []] : hold(state, event)
}

/** Changes from before the load begins are in what it loads. */
export function discard(state: In<"stale">): Step {
  return [state, [{ do: "discard" }]]
}

export function overflow(state: In<"loading">): Step {
  return [{ ...state, overflowed: true }, [{ do: "discard" }]]
}

export function load(state: In<"stale">): Step {
  return [
    { kind: "loading", ...tries(state), ...staleness(state), overflowed: false },
    [{ do: "load", reason: state.reason }],
  ]
}

export function adopt(state: In<"loading">, { cursor }: Occurs<"loaded">, facts: Facts): Step {
  if (cursor !== undefined) {
    return [
      { kind: "joining", ...tries(state), ...staleness(state) },
      [{ do: "discard" }, { do: "move", cursor }, { do: "join", cursor }],
    ]
  }
  if (!state.overflowed) {
    const moved: Effect[] = state.from === undefined ? [] : [{ do: "move", cursor: state.from }]
    return goLive(tries(state), [...moved, { do: "release" }])
  }
  const [next, effects] = loadAgain(state, { type: "load_failed" }, facts)
  return [next, [...effects, { do: "fail", code: "resync", cause: "too much happened while it was loaded" }]]
}

export function loadAgain(state: In<"loading" | "joining">, _event: unknown, facts: Facts): Step {
  return [
    { kind: "stale", ...tries(state), ...staleness(state), failures: state.failures + 1 },
    [timer(backoff(state.failures, facts.chance))],
  ]
}

export function join(state: In<"joining">, event: Occurs<"joined">, facts: Facts): Step {
  if (event.recovered) return follow(tries(state), event)
  const reason = event.reason ?? "no_cursor"
  const [next, effects] = loadAgain({ ...state, reason, from: event.cursor }, event, facts)
  const cause = `the cursor that was loaded cannot be continued (${reason})`
  return [next, [{ do: "forget" }, ...effects, { do: "fail", code: "resync", cause }]]
}

// ------------------------------------------------------------------------------------------- disconnected

export function giveUp(state: State, _event: unknown, facts: Facts): Step {
  return retry(state, { cause: "no answer" }, facts)
}

export function retry(state: State, { cause }: { cause: string }, facts: Facts): Step {
  return wait(state, cause, backoff(state.attempt, facts.chance), facts)
}

/** Waits longer while the network is away or nobody looks at the page. */
function wait(state: State, cause: string, delay: number, facts: Facts): Step {
  const delayMs = facts.online && facts.visible ? delay : idly(facts.chance)
  const next = { ...tries(state), attempt: state.attempt + 1, delayMs, cause }
  return [{ kind: facts.online ? "waiting" : "offline", ...next }, [...leave(state), timer(delayMs)]]
}

export function end(state: State, { code, cause }: Occurs<"ended">, facts: Facts): Step {
  if (code === INVALID_TOKEN || code === TOKEN_EXPIRED) {
    if (!facts.renewable || (code === INVALID_TOKEN && state.refused)) return fail(state, { cause })
    const [next, effects] = retry(
      { ...state, refused: code === INVALID_TOKEN || state.refused },
      { cause },
      facts,
    )
    return [next, [...effects, { do: "invalidate_token" }]]
  }
  if (code >= 4500 && code < 5000) return fail(state, { cause })
  const shared = SHARED_CODES.includes(code) && state.attempt === 0
  return wait(state, cause, shared ? spread(facts.chance) : backoff(state.attempt, facts.chance), facts)
}

export function goOffline(state: State, _event: unknown, facts: Facts): Step {
  return wait(state, "the browser is offline", idly(facts.chance), { ...facts, online: false })
}

export function suspend(state: State): Step {
  return [{ kind: "suspended", ...tries(state) }, leave(state, true)]
}

export function fail(state: State, { cause }: { cause: string }): Step {
  return shut(state, cause, { do: "fail", code: "refused", cause })
}

export function stop(state: State): Step {
  return shut(state, "closed by the caller")
}

function shut(state: State, cause: string, ...effects: Effect[]): Step {
  return [{ kind: "closed", ...tries(state), cause }, [...leave(state, true), ...effects]]
}
