/** What a transition returns, and what several of them have in common. Pure. */

import type { Effect, Facts, Next, State, Tries } from "./state.ts"

export type Step = readonly [Next, readonly Effect[]]

export const tries = ({ attempt, refused }: State): Tries => ({ attempt, refused })
export const timer = (ms: number): Effect => ({ do: "timer", ms })

/** Loads something to show, where there is nothing. */
export const preload = ({ blank, online }: Facts): Effect[] =>
  blank && online ? [{ do: "load", reason: "unreachable" }] : []

/** Cleans up what a state holds. */
export function leave(state: State, graceful = false): Effect[] {
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
