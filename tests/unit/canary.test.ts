/** When canaries are written, and which of them are missed. */

import t from "tap"
import { createCanary } from "../../relay/feed/canary.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { createTestClock, settled } from "../helpers/clock.ts"
import { createHolds } from "../helpers/holds.ts"

const INTERVAL_MS = 10_000
/** How soon the next follows while one is missing. */
const AGAIN_MS = 2_000

function createWorld(intervalMs = INTERVAL_MS) {
  const clock = createTestClock()
  const holds = createHolds()
  const written: string[] = []
  const warnings: string[] = []
  const database = { allows: true }
  const canary = createCanary({
    changelog: {
      async writeCanary(text) {
        if (database.allows) written.push(text)
        await holds.pass("write")
        return database.allows
      },
    },
    log: createLog(
      { LOG_LEVEL: "warn", LOG_FORMAT: "json" },
      { write: (line) => void warnings.push(JSON.parse(line).error) },
    ),
    metrics: createMetrics(),
    intervalMs,
    clock,
  })
  const last = () => canary.receive(written.slice(-1))
  return { clock, holds, written, warnings, database, canary, last }
}

t.test("one that came back is followed by the next after the interval", async (t) => {
  const { clock, written, canary, last } = createWorld()
  canary.start()
  await settled()
  t.match(canary.state(), { provenAt: null, waitingSince: 0 })
  await clock.pass(30)
  last()
  t.same(canary.state(), { provenAt: 30, waitingSince: null, error: null, failingSince: null })
  await clock.pass(INTERVAL_MS - 31)
  t.equal(written.length, 1)
  await clock.pass(1)
  t.equal(written.length, 2)
  t.match(canary.state(), { provenAt: 30, waitingSince: INTERVAL_MS })
})

t.test("one that is missing is soon followed by others, and any of them proves the log", async (t) => {
  const { clock, written, canary } = createWorld()
  canary.start()
  await clock.pass(2 * AGAIN_MS)
  t.equal(written.length, 3)
  t.match(canary.state(), { waitingSince: 0 }, "since the first of them")
  canary.receive(written.slice(1, 2))
  t.match(canary.state(), { provenAt: 2 * AGAIN_MS, waitingSince: null })
  canary.receive(["of another relay"])
  await clock.pass(AGAIN_MS)
  canary.receive(written.slice(0, 1))
  t.match(canary.state(), { provenAt: 2 * AGAIN_MS }, "those before it do not count any more")
})

t.test("one may be read before its own statement has answered", async (t) => {
  const { clock, holds, canary, last } = createWorld()
  const write = holds.next("write")
  canary.start()
  await write.reached
  await clock.pass(5)
  last()
  t.match(canary.state(), { provenAt: 5, waitingSince: null })
  write.release()
  await settled()
  t.match(canary.state(), { provenAt: 5, waitingSince: null })
})

t.test("one that could not be written, or may not be, is not waited for", async (t) => {
  const { clock, holds, database, warnings, canary } = createWorld()
  holds.next("write").fail("away")
  canary.start()
  await settled()
  const { failingSince } = canary.state()
  t.match(canary.state(), { provenAt: null, waitingSince: null, error: "away" })
  t.equal(failingSince, clock.now())
  holds.next("write").fail("still away")
  await clock.pass(AGAIN_MS)
  t.match(canary.state(), { waitingSince: null, error: "still away", failingSince }, "tried again soon")
  t.same(warnings, ["away"], "once, until one can be written")
  database.allows = false
  await clock.pass(AGAIN_MS)
  t.same(canary.state(), { provenAt: null, waitingSince: null, error: null, failingSince: null })
})

t.test("a stop ends the pause, and without an interval there is none", async (t) => {
  const { clock, written, canary } = createWorld()
  canary.start()
  await settled()
  await canary.stop()
  t.same(clock.waits(), [])
  t.equal(written.length, 1)
  const without = createWorld(0)
  without.canary.start()
  await settled()
  t.same(without.written, [])
})
