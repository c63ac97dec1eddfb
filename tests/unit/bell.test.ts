import t from "tap"
import { parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { createBell } from "../../relay/feed/bell.ts"
import type { Session } from "../../relay/feed/log-session.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"

/** A bell on a clock of its own, and the leases that it took. */
function world() {
  let now = 0
  const leases: number[] = []
  const bell = createBell({ setting: "adaptive", metrics: createMetrics(), now: () => now })
  const session = {
    lease: async (ms: number) => void leases.push(ms),
    endLease: async () => true,
    fence: async () => 1n,
  } as Partial<Session> as Session
  return {
    leases,
    /** Some time later so many bells ring, and a read shows these transactions in flight. */
    async read({
      afterMs = 50,
      bells = 2,
      inFlight,
    }: {
      afterMs?: number
      bells?: number
      inFlight: number[]
    }) {
      now += afterMs
      for (let n = 0; n < bells; n++) bell.rang(`${now}.${n}`)
      const xmax = Math.max(1_000 + now, ...inFlight.map((xid) => xid + 1))
      const text = `${Math.min(xmax, ...inFlight)}:${xmax}:${inFlight.join(",")}`
      const snapshot = parseSnapshot(text) as Snapshot
      await bell.afterRead(session, { snapshot, leaseMs: null, transactions: new Set() })
      return leases.length > 0
    },
  }
}

const QUEUE = [900, 901, 902, 903]

t.test("writers who queue for the lock of NOTIFY are spared it, however few get through", async (t) => {
  const { read } = world()
  t.notOk(await read({ inFlight: QUEUE }), "once may be chance")
  t.notOk(await read({ inFlight: QUEUE }))
  t.ok(await read({ inFlight: QUEUE }), "three reads in a row show a queue")
})

t.test("as many bells without a queue are no reason to poll", async (t) => {
  const { read } = world()
  for (let n = 0; n < 10; n++) t.notOk(await read({ inFlight: n % 3 === 0 ? [900, 901] : QUEUE }))
})

t.test("a queue in which nobody rings is none of ours", async (t) => {
  const { read } = world()
  for (let n = 0; n < 20; n++)
    t.notOk(await read({ afterMs: 200, bells: n % 10 === 0 ? 1 : 0, inFlight: QUEUE }))
})

t.test("transactions that were forgotten are no queue", async (t) => {
  const { read } = world()
  // Nobody rings until they have been in flight for long.
  for (let n = 0; n < 3; n++) await read({ afterMs: 6_000, bells: 0, inFlight: QUEUE })
  for (let n = 0; n < 10; n++) t.notOk(await read({ inFlight: QUEUE }))
})
