/** Sleeping and waking, on the clock of the process. */

import { getEventListeners } from "node:events"
import t from "tap"
import { sleep, systemClock } from "../../relay/lib/clock.ts"
import { Wakeup } from "../../relay/lib/wakeup.ts"
import { createTestClock, settled } from "../helpers/clock.ts"

const FOREVER_MS = 2_000_000_000

t.test("a sleep ends by itself, at once if it is aborted, and leaves nothing behind", async (t) => {
  const controller = new AbortController()
  const { signal } = controller
  const before = systemClock.now()
  await sleep(systemClock, 5, signal)
  t.ok(systemClock.now() - before >= 4, "timers may be early by a part of a millisecond")
  t.equal(getEventListeners(signal, "abort").length, 0)
  const asleep = sleep(systemClock, FOREVER_MS, signal)
  t.equal(getEventListeners(signal, "abort").length, 1)
  controller.abort()
  await asleep
  t.equal(getEventListeners(signal, "abort").length, 0)
  await sleep(systemClock, FOREVER_MS, signal)
  t.pass("and this file ends, so no timer is left")
})

t.test("a wake-up ends the wait, and one that came before it is not lost", async (t) => {
  const clock = createTestClock()
  const wakeup = new Wakeup(clock)
  const woken = wakeup.wait(10)
  wakeup.wake()
  t.equal(await woken, true)
  t.same(clock.waits(), [])
  wakeup.wake()
  wakeup.wake()
  t.equal(await wakeup.wait(10), true)
  const alone = wakeup.wait(10)
  await settled()
  t.same(clock.waits(), [10], "two wake-ups before a wait are one")
  await clock.pass(10)
  t.equal(await alone, false)
})
