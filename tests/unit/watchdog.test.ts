/** A connection is dead when nothing has come for too long, by whichever clock went further. */

import t from "tap"
import { createWatchdog } from "../../client/watchdog.ts"
import { FakeClock } from "../helpers/fake-clock.ts"

function start() {
  const clock = new FakeClock()
  const found = { silent: 0 }
  const watchdog = createWatchdog(clock, () => found.silent++)
  watchdog.start(1_000)
  return { clock, watchdog, found }
}

t.test("what comes puts off the end by the whole limit", async (t) => {
  const { clock, watchdog, found } = start()
  clock.pass(900)
  watchdog.reset()
  clock.pass(999)
  t.equal(found.silent, 0)
  clock.pass(1)
  t.equal(found.silent, 1)
  clock.pass(10_000)
  t.equal(found.silent, 1, "and it is reported once")
})

t.test("an alarm that rings late, after a sleep, finds the connection dead", async (t) => {
  const { clock, watchdog, found } = start()
  clock.pass(900)
  watchdog.reset()
  clock.sleep(3_600_000)
  t.equal(found.silent, 0, "nothing runs while the machine sleeps")
  clock.pass(100)
  t.equal(found.silent, 1, "though the steady clock knows of 100 ms")
})

t.test("after a sleep it can be looked at before the alarm rings", async (t) => {
  const { clock, watchdog, found } = start()
  clock.sleep(500)
  watchdog.check()
  t.equal(found.silent, 0)
  t.same(clock.alarms, [500], "one alarm, for what is left")
  clock.sleep(500)
  watchdog.check()
  t.equal(found.silent, 1)
})

t.test("a wall clock that is set back keeps no dead connection alive", async (t) => {
  const { clock, found } = start()
  clock.setBack(3_600_000)
  clock.pass(1_000)
  t.equal(found.silent, 1)
})

t.test("a stopped one stays silent, whoever looks", async (t) => {
  const { clock, watchdog, found } = start()
  watchdog.stop()
  clock.pass(2_000)
  watchdog.check()
  watchdog.reset()
  t.equal(found.silent, 0)
  t.same(clock.alarms, [])
})
