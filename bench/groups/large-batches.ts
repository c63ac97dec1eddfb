/**
 * Large batches beside a client that reads nothing: one INSERT of many rows, and how late the next change comes to those
 * who read, and all of it.
 */

import { now } from "../clients/clock.ts"
import { percentilesOf } from "../clients/percentiles.ts"
import { compareToFirst, figure, measured, type Outcome, type Row } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import { play, type Stage } from "../harness/stage.ts"
import { insert } from "../harness/write.ts"

const ROWS = 60_000
const QUICK_ROWS = 20_000
const CLIENTS = 20
const ROUNDS = 3
const PATIENCE_MS = 120_000

const KINDS = [
  { name: "nobody stuck", stuck: 0, path: "/ws" },
  { name: "one stuck in their lane", stuck: 1, path: "/ws" },
  { name: "one stuck in a lane of its own", stuck: 1, path: "/ws?types=voting_update" },
]

export async function* largeBatches(stage: Stage): AsyncGenerator<Row> {
  const rows = stage.choice.quick ? QUICK_ROWS : ROWS
  const cells = KINDS.map(({ name }) => ({
    group: "stuck",
    name: `${CLIENTS} clients, one INSERT of ${rows.toLocaleString("en")} rows, ${name}`,
    command: "npm run bench -- stuck",
  }))
  const measure = async function* (server: Server): AsyncGenerator<Outcome> {
    await write(stage, server, rows) // the first costs more
    for (const { stuck, path } of KINDS) {
      const deaf = stage.deaf({ ...server, target: { ...server.target, paths: [path] } })
      const times: number[] = []
      for (let round = 0; round < ROUNDS; round++) {
        await deaf.connect(stuck, false)
        times.push(await write(stage, server, rows))
        await deaf.leave()
      }
      const { p50, max } = percentilesOf(times)
      yield measured(figure("p50", p50, "ms"), figure("max", max, "ms"))
    }
  }
  yield* compareToFirst(await play(stage, "ours", cells, measure), ["p50", "max"])
}

/** @returns how long after its commit the next change came to those who read. Milliseconds. */
async function write(stage: Stage, server: Server, rows: number): Promise<number> {
  const session = await stage.session()
  const readers = stage.audience(server)
  await readers.connect(CLIENTS)
  await readers.begin()
  await insert(session, OWN_TABLE, rows)
  await insert(session, OWN_TABLE, 1, "probe:0")
  const committed = now()
  const { reached } = await readers.reach((rows + 1) * CLIENTS, PATIENCE_MS)
  const { probes } = await readers.report()
  await readers.stop()
  if (!reached) throw new Error("those who read have not got all")
  return (Math.max(...probes.map(({ at }) => at)) - committed) / 1_000
}
