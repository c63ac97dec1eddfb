/** Timers that may be long. */

import t from "tap"
import { setAlarm } from "../../client/alarm.ts"

t.test("an alarm in 60 days does not ring now", async (t) => {
  const warnings: string[] = []
  const onWarning = ({ name }: Error) => warnings.push(name)
  process.on("warning", onWarning)
  t.teardown(() => process.off("warning", onWarning))
  let rung = false
  const cancel = setAlarm(60 * 86_400_000, () => {
    rung = true
  })
  // What overflows is set to 1 ms, and this comes after it.
  await new Promise<void>((resolve) => setAlarm(5, resolve))
  cancel()
  t.notOk(rung)
  t.same(warnings, [])
})

t.test("an alarm that was cancelled does not ring", async (t) => {
  const cancel = setAlarm(1, () => t.fail("it rang"))
  cancel()
  await new Promise<void>((resolve) => setAlarm(5, resolve))
})
