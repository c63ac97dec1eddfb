/** Runs the machine: one event after the other, each with all its effects. Keeps the timer and the held events. */

import type { Clock } from "./clock.ts"
import { INITIAL, transition } from "./machine.ts"
import type { Effect, Event, Facts, OuterEffect, State } from "./state.ts"

export type Dispatch = (event: Event) => void

export interface EffectRunner {
  /** @param dispatch takes the events that come of it, now or later. */
  run(effect: OuterEffect, dispatch: Dispatch): void
  /** The machine came to a state of another kind. */
  onState(state: State): void
}

export interface RuntimeDeps {
  clock: Clock
  facts(): Facts
  effects: EffectRunner
}

export interface Runtime {
  readonly state: State
  /** An event that a listener causes waits until the present one is done. */
  dispatch: Dispatch
  /** Skips all waiting events, so that nothing more is emitted. */
  close(): void
}

/** How many events may be held back while the state is loaded. */
const MOST_HELD = 10_000

export function createRuntime({ clock, facts, effects }: RuntimeDeps): Runtime {
  let state = INITIAL
  let running = false
  let held: Event[] = []
  let cancelTimer = () => {}
  const queue: Event[] = []

  function dispatch(event: Event): void {
    queue.push(event)
    proceed()
  }

  function proceed(): void {
    if (running) return
    running = true
    try {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) step(next)
    } finally {
      running = false
    }
  }

  function step(event: Event): void {
    const before = state
    const [after, caused] = transition(before, event, facts())
    if (after !== before) {
      cancelTimer()
      state = after
    }
    for (const effect of caused) run(effect)
    if (after.kind !== before.kind) effects.onState(after)
  }

  function run(effect: Effect): void {
    switch (effect.do) {
      case "timer":
        cancelTimer = clock.setAlarm(effect.ms, () => dispatch({ type: "timer" }))
        return
      case "hold":
        if (held.push(effect.event) > MOST_HELD) dispatch({ type: "overflow" })
        return
      case "release":
        queue.unshift(...held.splice(0))
        return
      case "discard":
        held = []
        return
      default:
        effects.run(effect, dispatch)
    }
  }

  return {
    get state() {
      return state
    },
    dispatch,
    close() {
      queue.unshift({ type: "close" })
      proceed()
    },
  }
}
