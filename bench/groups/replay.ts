/** Replay: how fast clients that return are brought to the present, from memory, from the log, and many at once. */

import { now } from "../clock.ts"
import { figure, measured, type Outcome, type Row } from "../row.ts"
import { OWN_TABLE } from "../session.ts"
import { type Group, play } from "../stage.ts"
import { faultOf } from "../validity.ts"
import { insert } from "../write.ts"

const CHANGES = 100_000
const QUICK_CHANGES = 20_000
const CLIENTS = 1_000
const QUICK_CLIENTS = 200
/** What each of many has missed. */
const MISSED = 1_000
const TRANSACTION = 100
const PATIENCE_MS = 120_000

export const replay: Group = async function* (stage) {
  const { quick, clients = [quick ? QUICK_CLIENTS : CLIENTS] } = stage.choice
  const { changes = quick ? QUICK_CHANGES : CHANGES } = stage.choice
  const cellOf = (name: string, options: string) => ({
    group: "replay",
    name,
    command: `npm run bench -- replay ${options}`,
  })
  const many = changes.toLocaleString("en")
  let cursor = ""
  let late = ""
  let total = 0
  let plain = Number.NaN

  const comeBack = (from: () => string, count: number, missed: () => number) =>
    async function* (server: Parameters<Parameters<typeof play>[3]>[0]): AsyncGenerator<Outcome> {
      const audience = stage.audience(server, [`/ws?cursor=${encodeURIComponent(from())}`])
      const health = await stage.watch(server)
      await audience.begin()
      const began = now()
      await audience.connect(count)
      const { at } = await audience.reach(missed() * count, PATIENCE_MS)
      const ms = (at - began) / 1_000
      const report = await audience.report()
      const { p99, max } = await health.stop()
      const fault = faultOf({ reports: [report], expected: missed(), alive: server.alive() })
      if (fault !== undefined) yield { kind: "invalid", reason: fault }
      else
        yield measured(
          figure("changes", (report.events / ms) * 1_000, "/s"),
          figure("took", ms, "ms"),
          figure("health p99", p99, "ms"),
          figure("health max", max, "ms"),
        )
    }

  // The first relay is there while the changes are written, so that it has them in memory.
  const fromMemory = await play(
    stage,
    "ours",
    [cellOf(`${many} changes from memory`, `--changes ${changes}`)],
    async function* (server) {
      const session = await stage.session()
      const here = async () => (await session.query("select relay.cursor() as it")).rows[0].it as string
      const live = stage.audience(server)
      await live.connect(1)
      await live.begin()
      cursor = await here()
      const { rows } = await session.query("select coalesce(max(seq), 0)::text as seq from relay.change")
      for (let written = 0; written < changes; written += TRANSACTION)
        await insert(session, OWN_TABLE, Math.min(TRANSACTION, changes - written))
      late = await here()
      await insert(session, OWN_TABLE, MISSED)
      total = changes + MISSED
      await live.reach(total, PATIENCE_MS)
      const began = now()
      await session.query(
        "select seq::text, xid::text, old, new, meta from relay.change where seq > $1 order by seq",
        [rows[0].seq],
      )
      plain = (now() - began) / 1_000
      yield* comeBack(
        () => cursor,
        1,
        () => total,
      )(server)
    },
    { REPLAY_BUFFER_MB: "4096" },
  )
  const fromLog = await play(
    stage,
    "ours",
    [cellOf(`${many} changes from the log`, `--changes ${changes}`)],
    comeBack(
      () => cursor,
      1,
      () => total,
    ),
    { REPLAY_BUFFER_MB: "1" },
  )
  yield* [...fromMemory, ...fromLog].map((row) => againstSelect(row, plain))
  for (const count of clients)
    yield* await play(
      stage,
      "ours",
      [cellOf(`${count.toLocaleString("en")} clients at once, 1,000 changes each`, `--clients ${count}`)],
      comeBack(
        () => late,
        count,
        () => MISSED,
      ),
      { REPLAY_BUFFER_MB: "64" },
    )
}

/** Beside a plain SELECT of the same rows by node-postgres in the same run. */
function againstSelect(row: Row, plainMs: number): Row {
  if (row.outcome.kind !== "measured") return row
  const took = row.outcome.figures.find(({ name }) => name === "took")?.value ?? Number.NaN
  return {
    ...row,
    outcome: {
      ...row.outcome,
      ratios: [{ figure: "took", to: "a SELECT of the same rows", value: took / plainMs }],
    },
  }
}
