/**
 * Costly filters: a hundred connections of one user, each with five conditions of its own on a column of large texts that
 * lets none of them pass; and how late the next change comes to those who read.
 */

import type { Audience } from "../clients/audience.ts"
import { now } from "../clients/clock.ts"
import { percentilesOf } from "../clients/percentiles.ts"
import { compareToFirst, figure, measured, type Outcome, type Row } from "../harness/row.ts"
import { type Server, tokenFor } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import { DEAF_USER, play, type Stage } from "../harness/stage.ts"
import { insert } from "../harness/write.ts"

const CONNECTIONS = 100
const LARGE_ROWS = 20
const CLIENTS = 20
const ROUNDS = 5
const PATIENCE_MS = 120_000

/** A text of 1 MB of which every character has an escape in JSON. Its committee is not that of the readers. */
const WRITE_LARGE = `
  insert into ${OWN_TABLE} (election_id, committee_id, votes, entered_by)
  select 1, 1, g, repeat(E'\\n"', 250000) from generate_series(1, ${LARGE_ROWS}) g`

const NAMES = ["no filters", `${CONNECTIONS} filters of one user`]

export async function* costlyFilters(stage: Stage): AsyncGenerator<Row> {
  const cells = NAMES.map((name) => ({
    group: "stuck",
    name: `${CLIENTS} clients, ${LARGE_ROWS} rows of 1 MB, ${name}`,
    command: "npm run bench -- stuck",
  }))
  const measure = async function* (server: Server): AsyncGenerator<Outcome> {
    const readers = stage.audience(server, [`/ws?where=${encodeURIComponent('{"committee_id":2}')}`])
    await readers.connect(CLIENTS)
    await write(stage, readers) // the first costs more
    yield await late(stage, readers)
    const target = { ...server.target, headers: { Authorization: `Bearer ${tokenFor(DEAF_USER)}` } }
    await stage.audience({ ...server, target }, FILTERS).connect(CONNECTIONS)
    yield await late(stage, readers)
  }
  yield* compareToFirst(await play(stage, "ours", cells, measure), ["p50", "max"])
}

const FILTERS = Array.from({ length: CONNECTIONS }, (_, n) => {
  const text = `~${n}`
  const where = { entered_by: { gt: text, gte: text, lt: `${text}z`, lte: `${text}z`, neq: text } }
  return `/ws?where=${encodeURIComponent(JSON.stringify(where))}`
})

async function late(stage: Stage, readers: Audience): Promise<Outcome> {
  const times: number[] = []
  for (let round = 0; round < ROUNDS; round++) times.push(await write(stage, readers))
  const { p50, max } = percentilesOf(times)
  return measured(figure("p50", p50, "ms"), figure("max", max, "ms"))
}

/** @returns how long after its commit the next change came to those who read. Milliseconds. */
async function write(stage: Stage, readers: Audience): Promise<number> {
  const session = await stage.session()
  await readers.begin()
  await session.query(WRITE_LARGE)
  await insert(session, OWN_TABLE, 1, "probe:0")
  const committed = now()
  const { reached } = await readers.reach(CLIENTS, PATIENCE_MS)
  const { probes } = await readers.report()
  if (!reached) throw new Error("those who read have not got the next change")
  return (Math.max(...probes.map(({ at }) => at)) - committed) / 1_000
}
