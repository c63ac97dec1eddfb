/**
 * The trees model: random tables and trees of them, with triggers and functions that change other rows, random statements
 * and alterations, on a real PostgreSQL, relay and socket. At every rest a client that applies what it is told by the
 * protocol's rule holds what the tables hold, or was told to load them.
 *
 * COMMITCAST_MODEL_RUNS: how many runs. COMMITCAST_MODEL_SEED and _PATH, printed on failure: that one again.
 */

import fc from "fast-check"
import t from "tap"
import { database } from "../helpers/database.ts"
import { startRelay } from "../helpers/relay.ts"
import { TreeFollower } from "../helpers/tree-follower.ts"
import { tablePlans } from "../helpers/tree-schema.ts"
import {
  type AlterationPlan,
  alterationPlan,
  type TransactionPlan,
  transactionPlan,
} from "../helpers/tree-statements.ts"
import { type Counts, TreeWorld } from "../helpers/tree-world.ts"

const { COMMITCAST_MODEL_RUNS: runs, COMMITCAST_MODEL_SEED: seed, COMMITCAST_MODEL_PATH: path } = process.env
const RUNS = Number(runs ?? 60)
/** After this no run begins, unless their number was asked for; so long a failure is made smaller. Milliseconds. */
const TIME_MS = runs === undefined ? 30_000 : Number.POSITIVE_INFINITY
const SHRINK_MS = 60_000

const isAlteration = (step: TransactionPlan | AlterationPlan): step is AlterationPlan => "kind" in step

t.test("a client that applies what it is told holds what the tables hold", async (t) => {
  const db = await database(t)
  const relay = await startRelay(t, db, { LOG_LEVEL: "warn" })
  const follower = new TreeFollower((await relay.connect()).socket)
  const session = await db.session()
  await session.query("set timezone = 'UTC'; set client_min_messages = 'error'")
  const counts: Counts = { transactions: 0, failed: 0, alterations: 0, rests: 0, loads: 0, compared: 0 }
  const steps = fc.array(
    fc.oneof({ weight: 4, arbitrary: transactionPlan }, { weight: 1, arbitrary: alterationPlan }),
    { minLength: 3, maxLength: 15, size: "max" },
  )
  let number = 0
  let deadline = Date.now() + TIME_MS
  const property = fc.asyncProperty(tablePlans, steps, async (plans, steps) => {
    if (Date.now() > deadline) return
    const world = new TreeWorld(session, follower, `m${number++}`, plans, counts)
    try {
      await world.build()
      for (const step of steps) await (isAlteration(step) ? world.alter(step) : world.transaction(step))
    } catch (error) {
      deadline = Math.min(deadline, Date.now() + SHRINK_MS)
      throw error
    } finally {
      await world.clear()
    }
  })
  await fc.assert(property, {
    numRuns: RUNS,
    ...(seed === undefined ? {} : { seed: Number(seed) }),
    ...(path === undefined ? {} : { path }),
  })
  t.comment({ runs: number, ...counts })
  t.ok(counts.compared > counts.loads, `${counts.compared} compared, ${counts.loads} loaded`)
})
