/** The listener in orders of events that real servers rarely show: proofs, and what comes around them. */

import t from "tap"
import type { ListenSession } from "../../relay/feed/listen-session.ts"
import { Listener } from "../../relay/feed/listener.ts"
import { type Deferred, deferred } from "../../relay/lib/deferred.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"
import { createTestClock, settled } from "../helpers/clock.ts"

const INTERVAL_MS = 10_000
const TIMEOUT_MS = 5_000
/** Longer than any pause after a session that was up. */
const RETRY_MS = 100

interface FakeSession {
  /** What was sent that has not come back. */
  readonly sent: string[]
  closed: boolean
  /** The server hands over what was sent last. */
  echo(): Promise<void>
  receive(payload: unknown): Promise<void>
  lose(why: string): Promise<void>
}

function createWorld() {
  const clock = createTestClock()
  const metrics = createMetrics()
  const sessions: FakeSession[] = []
  const seen: string[] = []
  /** What the next sessions meet when they are opened. */
  const openings: Array<Deferred<void>> = []
  const listener = new Listener({
    async open({ onPayload, signal }): Promise<ListenSession> {
      const lost = deferred<never>()
      signal.addEventListener("abort", () => lost.reject(new Error("stopping")))
      await Promise.race([openings.shift()?.promise, lost.promise])
      const receive = (payload: unknown) => {
        onPayload(payload)
        return settled()
      }
      const session: FakeSession = {
        sent: [],
        closed: false,
        receive,
        echo: () => receive(session.sent.pop()),
        lose(why) {
          lost.reject(new Error(why))
          return settled()
        },
      }
      sessions.push(session)
      return {
        channel: "bells",
        lost: lost.promise,
        notify: (payload) => void session.sent.push(payload),
        close() {
          session.closed = true
        },
      }
    },
    log: createLog({ LOG_LEVEL: "silent", LOG_FORMAT: "json" }),
    metrics,
    onBell: (xid) => seen.push(`bell ${xid}`),
    onLease: () => seen.push("lease"),
    onUp: () => seen.push("up"),
    proofIntervalMs: INTERVAL_MS,
    proofTimeoutMs: TIMEOUT_MS,
    clock,
  })
  const session = (): FakeSession => {
    const last = sessions.at(-1)
    if (last === undefined) throw new Error("no session")
    return last
  }
  const counts = async () =>
    Object.fromEntries((await metrics.bells.get()).values.map(({ labels, value }) => [labels.kind, value]))
  return { clock, sessions, session, seen, openings, listener, counts }
}

async function createProvenWorld() {
  const world = createWorld()
  world.listener.start()
  await settled()
  await world.session().echo()
  t.same(world.seen.splice(0), ["up"])
  return world
}

const bell = (xid: string) => JSON.stringify({ v: 1, table: "vote", op: "insert", rows: 1, xid })

t.test("it is up when its own notification has come back, and no sooner", async (t) => {
  const { clock, session, seen, listener } = createWorld()
  listener.start()
  await settled()
  t.equal(session().sent.length, 1)
  t.same(listener.state, { kind: "down", since: 0, attempts: 0, error: undefined })
  await session().receive(JSON.stringify({ v: 1, canary: "somebody else's" }))
  t.equal(listener.state.kind, "down")
  await clock.pass(7)
  await session().echo()
  t.same(listener.state, { kind: "up", since: 7, provenAt: 7 })
  t.same(seen, ["up"])
})

t.test("bells that come before the proof are handed on", async (t) => {
  const { session, seen, listener, counts } = createWorld()
  listener.start()
  await settled()
  await session().receive(bell("7"))
  await session().receive('{"v":1,"lease":1000}')
  await session().receive("noise")
  await session().receive(undefined)
  await session().receive("x".repeat(8_000))
  t.same(seen, ["bell 7", "lease"])
  t.same(await counts(), { bell: 1, lease: 1, garbage: 3 })
  t.equal(listener.state.kind, "down")
})

t.test("it proves itself again and again, and is up since the first proof", async (t) => {
  const { clock, session, seen, listener } = await createProvenWorld()
  await clock.pass(INTERVAL_MS - 1)
  t.same(session().sent, [])
  await clock.pass(1)
  await clock.pass(20)
  t.match(listener.state, { kind: "up", since: 0, provenAt: 0 }, "not proven before it came back")
  await session().echo()
  t.match(listener.state, { kind: "up", since: 0, provenAt: INTERVAL_MS + 20 })
  t.same(seen, [], "there was nothing to miss")
})

t.test("a proof of before proves nothing now", async (t) => {
  const { clock, session, listener } = await createProvenWorld()
  await clock.pass(INTERVAL_MS)
  const [old = ""] = session().sent
  await session().echo()
  await clock.pass(INTERVAL_MS)
  await session().receive(old)
  await clock.pass(TIMEOUT_MS)
  t.match(listener.state, { kind: "down", error: "a notification to itself did not come back in time" })
})

t.test("behind a flood the proof is late, and what comes instead keeps the session", async (t) => {
  const { clock, sessions, session, listener } = await createProvenWorld()
  for (let round = 1; round <= 3; round++) {
    await clock.pass(INTERVAL_MS)
    await session().receive("x".repeat(7_900))
    await clock.pass(TIMEOUT_MS)
    t.match(listener.state, { kind: "up", provenAt: round * (INTERVAL_MS + TIMEOUT_MS) })
  }
  t.equal(sessions.length, 1)
  await clock.pass(INTERVAL_MS)
  await clock.pass(TIMEOUT_MS)
  t.equal(listener.state.kind, "down", "silence is no flood")
})

t.test(
  "a proof that is late costs the session, and one of another session does not prove the next",
  async (t) => {
    const { clock, sessions, session, seen, listener } = await createProvenWorld()
    const deaf = session()
    await clock.pass(INTERVAL_MS + TIMEOUT_MS - 1)
    t.equal(listener.state.kind, "up")
    await clock.pass(1)
    t.same(listener.state, {
      kind: "down",
      since: INTERVAL_MS + TIMEOUT_MS,
      attempts: 0,
      error: "a notification to itself did not come back in time",
    })
    t.ok(deaf.closed)
    await clock.pass(RETRY_MS)
    t.equal(sessions.length, 2)
    await deaf.echo()
    t.equal(listener.state.kind, "down")
    await session().echo()
    t.equal(listener.state.kind, "up")
    t.same(seen, ["up"], "time to read what was missed")
  },
)

t.test("a session lost in the middle of a proof, or between two, is replaced at once", async (t) => {
  const { clock, sessions, session, listener } = await createProvenWorld()
  await session().lose("cut")
  t.match(listener.state, { kind: "down", attempts: 0, error: "cut" })
  await clock.pass(RETRY_MS)
  t.equal(sessions.length, 2)
  await session().lose("cut again")
  t.match(listener.state, { kind: "down", attempts: 1, error: "cut again" })
  t.same(
    sessions.map(({ closed }) => closed),
    [true, true],
  )
  t.equal(clock.waits().length, 1, "the pause alone: no proof is waited for any more")
})

t.test("a stop between two proofs closes the session, and sends nothing more", async (t) => {
  const { clock, session, listener } = await createProvenWorld()
  await listener.stop()
  t.ok(session().closed)
  t.same(session().sent, [])
  t.same(clock.waits(), [])
})

t.test("a stop in the middle of a proof, of connecting and of a pause", async (t) => {
  const proving = createWorld()
  proving.listener.start()
  await settled()
  await proving.listener.stop()
  t.ok(proving.session().closed)
  t.same(proving.clock.waits(), [])

  const connecting = createWorld()
  connecting.openings.push(deferred())
  connecting.listener.start()
  await settled()
  await connecting.listener.stop()
  t.same(connecting.sessions, [])
  t.same(connecting.clock.waits(), [])

  const pausing = createWorld()
  const opening = deferred<void>()
  pausing.openings.push(opening)
  pausing.listener.start()
  opening.reject(new Error("away"))
  await settled()
  t.match(pausing.listener.state, { kind: "down", attempts: 1, error: "away" })
  await pausing.listener.stop()
  t.same(pausing.sessions, [])
  t.same(pausing.clock.waits(), [])
})
