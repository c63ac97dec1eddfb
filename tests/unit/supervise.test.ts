/** One session after another: how often it was tried, since when it stands as it does, and how it is stopped. */

import t from "tap"
import { type Deferred, deferred } from "../../relay/lib/deferred.ts"
import { type Loss, Supervisor } from "../../relay/lib/supervise.ts"
import { createTestClock, settled } from "../helpers/clock.ts"

/** The longest pause after so many attempts. */
const longest = (attempts: number) => 100 * 2 ** attempts

function world() {
  const clock = createTestClock()
  const sessions: Array<Deferred<void> & { signal: AbortSignal }> = []
  const losses: Loss[] = []
  const supervisor = new Supervisor<{ lines: number }>({
    session(signal) {
      const session = { ...deferred<void>(), signal }
      signal.addEventListener("abort", () => session.reject(new Error("stopping")))
      sessions.push(session)
      return session.promise
    },
    onLost: (loss) => losses.push(loss),
    clock,
  })
  return {
    clock,
    sessions,
    losses,
    supervisor,
    fail: (why: string) => sessions.at(-1)?.reject(new Error(why)),
  }
}

t.test("attempts in a row are counted, and it is down since the first", async (t) => {
  const { clock, sessions, losses, supervisor, fail } = world()
  t.same(supervisor.state, { kind: "down", since: 0, attempts: 0, error: undefined })
  supervisor.start()
  for (const attempts of [1, 2, 3]) {
    t.equal(sessions.length, attempts)
    fail(`no ${attempts}`)
    await settled()
    t.same(supervisor.state, { kind: "down", since: 0, attempts, error: `no ${attempts}` })
    t.match(losses.at(-1), { wasUp: false, attempts, error: `no ${attempts}` })
    const { retryMs } = losses.at(-1) as Loss
    t.ok(retryMs >= longest(attempts) / 2)
    await clock.pass(retryMs - 1)
    t.equal(sessions.length, attempts, "it waits for as long as it says")
    await clock.pass(2)
    t.equal(sessions.length, attempts + 1)
  }
})

t.test("a session that was up is tried again soon, and it is down since then", async (t) => {
  const { clock, sessions, losses, supervisor, fail } = world()
  supervisor.start()
  fail("away")
  await clock.pass(1_000)
  supervisor.up({ lines: 1 })
  await clock.pass(500)
  supervisor.up({ lines: 2 })
  t.same(supervisor.state, { kind: "up", since: 1_000, lines: 2 }, "up since it came up first")
  fail("cut")
  await settled()
  t.same(supervisor.state, { kind: "down", since: 1_500, attempts: 0, error: "cut" })
  t.match(losses.at(-1), { wasUp: true, attempts: 0, error: "cut" })
  await clock.pass(longest(0))
  t.equal(sessions.length, 3)
})

t.test(
  "a session that goes on without working is down, and its end is no loss of one that was up",
  async (t) => {
    const { clock, losses, supervisor, fail } = world()
    supervisor.start()
    supervisor.up({ lines: 1 })
    await clock.pass(10)
    supervisor.down("no position")
    t.same(supervisor.state, { kind: "down", since: 10, attempts: 0, error: "no position" })
    await clock.pass(10)
    fail("cut")
    await settled()
    t.same(supervisor.state, { kind: "down", since: 10, attempts: 1, error: "cut" })
    t.match(losses, [{ wasUp: false }])
  },
)

t.test("a stop ends the pause before the next session, and there is none", async (t) => {
  const { clock, sessions, supervisor, fail } = world()
  supervisor.start()
  fail("away")
  await settled()
  t.equal(clock.waits().length, 1)
  await supervisor.stop()
  t.same(clock.waits(), [])
  t.equal(sessions.length, 1)
})

t.test("a stop ends the session, which is no loss, and is waited for", async (t) => {
  const { sessions, losses, supervisor } = world()
  supervisor.start()
  supervisor.up({ lines: 1 })
  await supervisor.stop()
  t.ok(sessions[0]?.signal.aborted)
  t.same(losses, [])
  supervisor.start()
  await settled()
  t.equal(sessions.length, 1, "and it does not begin again")
})

t.test("started twice it runs one session", async (t) => {
  const { sessions, supervisor } = world()
  supervisor.start()
  supervisor.start()
  await settled()
  t.equal(sessions.length, 1)
})
