/** Notices that a connection is dead because nothing has come on it for too long. A half-open socket reports nothing. */

import type { Clock } from "./clock.ts"

export interface Watchdog {
  start(limitMs: number): void
  /** Something has come. */
  reset(): void
  /** Looks now, because timers sleep with the machine. */
  check(): void
  stop(): void
}

export function createWatchdog(clock: Clock, onSilent: () => void): Watchdog {
  let limit: number | undefined
  let last = { wall: 0, steady: 0 }
  let cancel = () => {}

  function reset(): void {
    last = { wall: clock.wall(), steady: clock.steady() }
  }

  /** By the clock that went further: one may stand still while the machine sleeps, the other may be set back. */
  const silence = () => Math.max(clock.wall() - last.wall, clock.steady() - last.steady)

  function check(): void {
    cancel()
    if (limit === undefined) return
    const left = limit - silence()
    if (left <= 0) onSilent()
    else cancel = clock.setAlarm(left, check)
  }

  return {
    start(limitMs) {
      limit = limitMs
      reset()
      check()
    },
    reset,
    check,
    stop() {
      limit = undefined
      cancel()
    },
  }
}
