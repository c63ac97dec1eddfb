/**
 * Many lanes: a hundred connections of one user that read nothing, each with a filter of its own, while large batches are
 * written; what the relay holds at most, and once they have left.
 */

import { setTimeout as sleep } from "node:timers/promises"
import { compareToFirst, figure, measured, type Outcome, type Row } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import { play, type Stage } from "../harness/stage.ts"
import { memoryOf } from "../harness/usage.ts"
import { insert } from "../harness/write.ts"

const CONNECTIONS = 100
const BATCHES = 6
const ROWS = 10_000
const SAMPLE_MS = 250
const AFTERWARDS_MS = 15_000
const PATIENCE_MS = 120_000
const MB = 1_048_576

/** What each of the filters lets pass. */
const KINDS = [
  { name: "nobody stuck", stuck: 0, where: () => ({}) },
  {
    name: `${CONNECTIONS} lanes that show the same`,
    stuck: CONNECTIONS,
    where: (n: number) => ({ [`x${n}`]: null }),
  },
  {
    name: `${CONNECTIONS} lanes that show other rows`,
    stuck: CONNECTIONS,
    where: (n: number) => ({ votes: { neq: n } }),
  },
]

export async function* manyLanes(stage: Stage): AsyncGenerator<Row> {
  const rows: Row[] = []
  for (const kind of KINDS) {
    const cell = {
      group: "stuck",
      name: `${BATCHES} INSERTs of ${ROWS.toLocaleString("en")} rows, ${kind.name}`,
      command: "npm run bench -- stuck",
    }
    rows.push(...(await play(stage, "ours", [cell], (server) => hold(stage, server, kind))))
  }
  yield* compareToFirst(rows, ["memory at most", "memory afterwards"])
}

async function* hold(
  stage: Stage,
  server: Server,
  { stuck, where }: (typeof KINDS)[number],
): AsyncGenerator<Outcome> {
  const session = await stage.session()
  const reader = stage.audience(server)
  await reader.connect(1)
  await reader.begin()
  const paths = Array.from(
    { length: CONNECTIONS },
    (_, n) => `/ws?where=${encodeURIComponent(JSON.stringify(where(n)))}`,
  )
  const deaf = stage.deaf({ ...server, target: { ...server.target, paths } })
  for (const path of stuck > 0 ? paths : []) await deaf.connect(1, false, path)
  let most = 0
  let going = true
  const looking = (async () => {
    for (; going; await sleep(SAMPLE_MS)) most = Math.max(most, memoryOf(server.pid))
  })()
  for (let n = 0; n < BATCHES; n++) await insert(session, OWN_TABLE, ROWS)
  const { reached } = await reader.reach(BATCHES * ROWS, PATIENCE_MS)
  going = false
  await looking
  await deaf.leave()
  await sleep(AFTERWARDS_MS)
  await insert(session, OWN_TABLE, 1)
  await reader.reach(BATCHES * ROWS + 1, PATIENCE_MS)
  if (!reached || !server.alive()) return yield { kind: "invalid", reason: "who read has not got all" }
  yield measured(
    figure("memory at most", most / MB, "MB"),
    figure("memory afterwards", memoryOf(server.pid) / MB, "MB"),
  )
}
