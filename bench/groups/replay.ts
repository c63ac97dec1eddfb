/** Replay: how fast clients that return are brought to the present, from memory, from the log, and many at once. */

import { now } from "../clients/clock.ts"
import { figure, measured, type Outcome } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import { type Group, play, type Stage } from "../harness/stage.ts"
import { faultOf } from "../harness/validity.ts"
import { insert } from "../harness/write.ts"

const CHANGES = 100_000
const QUICK_CHANGES = 20_000
const CLIENTS = 1_000
const QUICK_CLIENTS = 200
/** What each of many has missed. */
const MISSED_BY_MANY = 1_000
const TRANSACTION = 100
const PATIENCE_MS = 120_000

interface Return {
  name: string
  options: string
  clients: number
  /** The changes that each has missed. */
  missed: number
  bufferMb: number
  /** They return to a relay that has begun anew, and has nothing in memory. */
  restarted: boolean
}

export const replay: Group = async function* (stage) {
  for (const each of returnsOf(stage)) {
    const { name, options, bufferMb } = each
    const cell = { group: "replay", name, command: `npm run bench -- replay ${options}` }
    const settings = { REPLAY_BUFFER_MB: String(bufferMb) }
    yield* await play(
      stage,
      "ours",
      [cell],
      async function* (first) {
        const { cursor, selectMs } = await miss(stage, first, each.missed)
        if (each.restarted) await first.stop()
        const server = each.restarted ? await stage.server("ours", settings) : first
        const outcome = await comeBack(stage, server, cursor, each)
        yield each.clients === 1 ? against(outcome, selectMs) : outcome
      },
      settings,
    )
  }
}

function returnsOf({ choice: { quick, clients, changes } }: Stage): Return[] {
  const both = clients === undefined && changes === undefined
  const alone = changes ?? (quick ? QUICK_CHANGES : CHANGES)
  const crowds = clients ?? (both ? [quick ? QUICK_CLIENTS : CLIENTS] : [])
  const one = {
    clients: 1,
    missed: alone,
    options: `--changes ${alone}`,
  }
  const name = `${alone.toLocaleString("en")} changes`
  return [
    ...(both || changes !== undefined
      ? [
          { ...one, name: `${name} from memory`, bufferMb: 4_096, restarted: false },
          { ...one, name: `${name} from the log`, bufferMb: 1, restarted: true },
        ]
      : []),
    ...crowds.map((count) => ({
      name: `${count.toLocaleString("en")} clients after a restart, ${MISSED_BY_MANY.toLocaleString("en")} changes each`,
      options: `--clients ${count}`,
      clients: count,
      missed: MISSED_BY_MANY,
      bufferMb: 64,
      restarted: true,
    })),
  ]
}

/** Writes what will have been missed. @returns from where on, and what a plain SELECT of it takes node-postgres. */
async function miss(
  stage: Stage,
  server: Server,
  changes: number,
): Promise<{ cursor: string; selectMs: number }> {
  const session = await stage.session()
  const live = stage.audience(server)
  await live.connect(1)
  await live.begin()
  const { rows: start } = await session.query(
    "select relay.cursor() as cursor, (select coalesce(max(seq), 0)::text from relay.change) as seq",
  )
  const [{ cursor, seq }] = start as [{ cursor: string; seq: string }]
  for (let written = 0; written < changes; written += TRANSACTION)
    await insert(session, OWN_TABLE, Math.min(TRANSACTION, changes - written))
  await live.reach(changes, PATIENCE_MS) // then the relay has all of it in memory
  const began = now()
  const rows = [0, 1, 2].map(
    (slot) => `select seq, xid::text, what, data from relay.change_${slot} where seq > $1`,
  )
  await session.query(`${rows.join(" union all ")} order by seq`, [seq])
  return { cursor, selectMs: (now() - began) / 1_000 }
}

async function comeBack(
  stage: Stage,
  server: Server,
  cursor: string,
  { clients, missed }: Return,
): Promise<Outcome> {
  const audience = stage.audience(server, [`/ws?cursor=${encodeURIComponent(cursor)}`])
  const health = await stage.watch(server)
  await audience.begin()
  const began = now()
  await audience.connect(clients)
  const { at } = await audience.reach(missed * clients, PATIENCE_MS)
  const report = await audience.report()
  const { p99, max } = await health.stop()
  const fault = faultOf({ reports: [report], expected: missed, alive: server.alive() })
  if (fault !== undefined) return { kind: "invalid", reason: fault }
  const ms = (at - began) / 1_000
  return measured(
    figure("changes", (report.events / ms) * 1_000, "/s"),
    figure("took", ms, "ms"),
    figure("health p99", p99, "ms"),
    figure("health max", max, "ms"),
  )
}

function against(outcome: Outcome, selectMs: number): Outcome {
  if (outcome.kind !== "measured") return outcome
  const took = outcome.figures.find(({ name }) => name === "took")?.value ?? Number.NaN
  return { ...outcome, ratios: [{ figure: "took", to: "a SELECT of the same rows", value: took / selectMs }] }
}
