/** Finds a connection dead on which nothing was heard for too long. Half-open sockets tell nothing by themselves. */

import { setAlarm } from "./alarm.ts"

export interface Watchdog {
  start(limitMs: number): void
  heard(): void
  /** Looks now: timers sleep with the machine. */
  check(): void
  stop(): void
}

export function createWatchdog(onSilent: () => void): Watchdog {
  let limit = Number.POSITIVE_INFINITY
  let heardAt = { wall: 0, steady: 0 }
  let cancel = () => {}

  function hear(): void {
    heardAt = { wall: Date.now(), steady: performance.now() }
  }

  /** By the clock that goes further: one of them may stand still while the machine sleeps, the other may be set back. */
  const silence = () => Math.max(Date.now() - heardAt.wall, performance.now() - heardAt.steady)

  function check(): void {
    cancel()
    if (limit === Number.POSITIVE_INFINITY) return
    const left = limit - silence()
    if (left <= 0) onSilent()
    else cancel = setAlarm(left, check)
  }

  return {
    start(limitMs) {
      limit = limitMs
      hear()
      check()
    },
    heard: hear,
    check,
    stop() {
      limit = Number.POSITIVE_INFINITY
      cancel()
    },
  }
}
