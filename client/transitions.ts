/**
 * The transitions of the machine on the way to live, and there: each takes a state and an event, and returns the next state
 * and the effects. Pure. Those that lead away are in `endings.ts`.
 */

import { backoff, spread } from "./backoff.ts"
import type { Reason } from "./messages.ts"
import { reloadReason } from "./reload.ts"
import type { Effect, Facts, In, Occurs, Recovery, Stale, State, Tries } from "./state.ts"
import { leave, preload, type Step, timer, tries } from "./step.ts"

/** How long to wait for a token, and for a socket. */
const ANSWER_MS = 15_000
/** How long to wait for connection_success once the relay is there. Longer than a heartbeat: a long replay delays it. */
const PATIENCE_MS = 45_000
/** After being live for so long, the next attempt counts as the first. */
const STABLE_MS = 10_000
/** Reasons to load that every client has at once. */
const SHARED_REASONS: readonly Reason[] = ["lineage", "too_old", "ahead"]
const staleness = ({ reason, from, failures }: Stale): Stale => ({ reason, from, failures })
const staleFor = (reason: Stale["reason"], from: string | undefined, failures = 0) => ({
  reason,
  from,
  failures,
  cause: `the state has to be loaded (${reason})`,
})
// ------------------------------------------------------------------------------------------- connecting

export function connect(state: State): Step {
  return [
    { kind: "authenticating", ...tries(state), cause: "asking for a token" },
    [...leave(state), { do: "get_token" }, timer(ANSWER_MS)],
  ]
}

/** A slow getToken is waited for: another call would be no faster. */
export function waitForToken(state: In<"authenticating">, _event: unknown, facts: Facts): Step {
  const cause = `getToken has not answered for ${ANSWER_MS / 1_000} s, and is waited for`
  return [{ ...state, cause }, [{ do: "fail", code: "token", cause }, ...preload(facts)]]
}

export function open(state: State, { token }: Occurs<"token">): Step {
  return [
    { kind: "opening", ...tries(state), cause: "connecting to the relay" },
    [{ do: "open", token }, timer(ANSWER_MS)],
  ]
}

/** What was loaded before there is a connection is gone on from once there is one. */
export function show(state: State, { cursor }: Occurs<"loaded">): Step {
  return [state, cursor === undefined ? [] : [{ do: "move", cursor }]]
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
    { kind: "stale", ...accepted, ...staleFor(reason, event.cursor) },
    [notice, { do: "forget" }, timer(delay)],
  ]
}

/** The relay continues from the client's position. */
function follow(accepted: Tries, { cursor, replayed }: Recovery): Step {
  const here: Effect = { do: "rename", cursor }
  if (replayed === 0) return goLive(accepted, [here])
  return [{ kind: "catching_up", ...accepted, cause: "what was missed is coming" }, [here]]
}

function goLive(accepted: Tries, before: readonly Effect[]): Step {
  return [
    { kind: "live", ...accepted, cause: "connected, and up to date" },
    [...before, timer(STABLE_MS), { do: "reconcile" }],
  ]
}

// ------------------------------------------------------------------------------------------- connected

export function deliver(state: In<"catching_up" | "live">, { change }: Occurs<"change">, facts: Facts): Step {
  const delivery: Effect = { do: "deliver", change }
  const reason = reloadReason(change)
  if (reason === undefined) return [state, [delivery]]
  const [next, effects] = reload(state, reason, facts)
  return [next, [delivery, ...effects]]
}

export function regain(state: In<"catching_up" | "live">, _event: unknown, facts: Facts): Step {
  return reload(state, "regained", facts)
}

/** The position stays where it is, so that a client that does not come to load gets what follows again. */
function reload(state: State, reason: Stale["reason"], facts: Facts): Step {
  const notice: Effect = { do: "emit_resync", reason }
  if (!facts.hook) return [state, [notice]]
  // Every client loads for the same reason.
  return [
    { kind: "stale", ...tries(state), ...staleFor(reason, undefined) },
    [notice, timer(spread(facts.chance))],
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
    {
      kind: "loading",
      ...tries(state),
      ...staleness(state),
      overflowed: false,
      cause: `the state is being loaded (${state.reason})`,
    },
    [{ do: "load", reason: state.reason }],
  ]
}

export function adopt(state: In<"loading">, { cursor }: Occurs<"loaded">, facts: Facts): Step {
  if (cursor !== undefined) {
    return [
      { kind: "joining", ...tries(state), ...staleness(state), cause: "going on from what was loaded" },
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
    { kind: "stale", ...tries(state), ...staleFor(state.reason, state.from, state.failures + 1) },
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
