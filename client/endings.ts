/** The transitions away from a connection: to another attempt, to a pause, or to the end. Pure. */

import { backoff, idly, spread } from "./backoff.ts"
import type { Effect, Facts, In, Occurs, State } from "./state.ts"
import { leave, preload, type Step, timer, tries } from "./step.ts"

/** Close codes that every client gets at once: going away, service restart, drain, cannot continue. */
const SHARED_CODES = [1001, 1012, 4000, 4010]
const INVALID_TOKEN = 4500
const TOKEN_EXPIRED = 4005
const BAD_MESSAGE = 4501
const TOO_MANY_CONNECTIONS = 4504
const TOO_MANY_CHANNELS = 4505
const FORBIDDEN = 4507
/** Which attempts are told why they failed: the fifth, by when a relay that is restarted is back, and then each tenth. */
const TOLD = 5
const TOLD_EVERY = 10

const isRefusal = (code: number) => code >= 4500 && code < 5000

/** No request can have this token, or this URL. */
export function reject(state: In<"opening">, { cause }: Occurs<"unusable">, facts: Facts): Step {
  if (!facts.renewable) return fail(state, { cause })
  return retry(state, { cause, tell: true }, facts)
}

export function giveUp(state: State, _event: unknown, facts: Facts): Step {
  return retry(state, { cause: "no answer", ask: true }, facts)
}

interface Failure {
  cause: string
  /** The relay has not said why. */
  ask?: boolean
  /** It is told at the first time: somebody has to do something about it. */
  tell?: boolean
  /** A line that was cut has no reason but that. */
  quiet?: boolean
  delayMs?: number
}

export function retry(state: State, failure: Failure, facts: Facts): Step {
  const { cause, ask = false, tell = false, quiet = false } = failure
  const { delayMs = backoff(state.attempt, facts.chance) } = failure
  const [next, effects] = wait(state, cause, delayMs, facts)
  const isTold = next.attempt % TOLD_EVERY === TOLD || (tell && next.attempt === 1)
  if (!isTold || quiet || !facts.online) return [next, effects]
  return [next, [...effects, { do: "explain", cause, ask }]]
}

/** Of a token that could not be had the caller knows already. */
export function retryToken(state: State, { cause }: Occurs<"token_failed">, facts: Facts): Step {
  return wait(state, cause, backoff(state.attempt, facts.chance), facts)
}

/** Waits longer while the network is away or nobody looks at the page. */
function wait(state: State, cause: string, delay: number, facts: Facts): Step {
  const delayMs = facts.online && facts.visible ? delay : idly(facts.chance)
  const next = { ...tries(state), attempt: state.attempt + 1, delayMs, cause }
  return [
    { kind: facts.online ? "waiting" : "offline", ...next },
    [...leave(state), timer(delayMs), ...preload(facts)],
  ]
}

export function end(state: State, { code, cause }: Occurs<"ended">, facts: Facts): Step {
  if (code === INVALID_TOKEN || code === TOKEN_EXPIRED) return endToken(state, code, cause, facts)
  const isChannel = code === FORBIDDEN && cause.includes("channel")
  if (code === FORBIDDEN && !isChannel) return fail(state, { cause })
  const ask = code < 4000 && state.kind === "opening"
  const quiet = code < 4000 && !ask
  const tell = isRefusal(code) && !isChannel
  const [next, effects] = retry(
    state,
    { cause, ask, quiet, tell, ...delayOf(state, code, cause, facts) },
    facts,
  )
  const isDoubtful = isChannel || code === BAD_MESSAGE || code === TOO_MANY_CHANNELS
  return [next, isDoubtful ? [{ do: "doubt", code, cause }, ...effects] : effects]
}

function delayOf(state: State, code: number, cause: string, { chance }: Facts): { delayMs?: number } {
  // Who comes back at once takes the place of another.
  if (code === TOO_MANY_CONNECTIONS && cause.includes("newer")) return { delayMs: idly(chance) }
  return SHARED_CODES.includes(code) && state.attempt === 0 ? { delayMs: spread(chance) } : {}
}

function endToken(state: State, code: number, cause: string, facts: Facts): Step {
  const isRefused = code === INVALID_TOKEN
  if (!facts.renewable || (isRefused && state.refused && facts.fresh)) return fail(state, { cause })
  const [next, effects] = retry(
    { ...state, refused: state.refused || (isRefused && facts.fresh) },
    { cause },
    facts,
  )
  return [next, [...effects, { do: "invalidate_token" }]]
}

export function goOffline(state: State, _event: unknown, facts: Facts): Step {
  return wait(state, "the browser is offline", idly(facts.chance), { ...facts, online: false })
}

export function suspend(state: State): Step {
  return [
    { kind: "suspended", ...tries(state), cause: "the browser has put the page away" },
    leave(state, true),
  ]
}

export function endUser(state: State): Step {
  return fail(state, { cause: "the token is of another user: close this feed, and open one for that user" })
}

function fail(state: State, { cause }: { cause: string }): Step {
  return shut(state, cause, { do: "fail", code: "refused", cause })
}

export function stop(state: State): Step {
  return shut(state, "closed by the caller")
}

function shut(state: State, cause: string, ...effects: Effect[]): Step {
  return [{ kind: "closed", ...tries(state), cause }, [...leave(state, true), ...effects]]
}
