/**
 * Returns: what it costs somebody who returns with ten changes missing that one other user returns at the same moment on
 * forty connections, each from another place far back, and wants none of what lies since then. Nothing is in memory.
 */

import { setTimeout as sleep } from "node:timers/promises"
import type { Audience } from "../clients/audience.ts"
import { now } from "../clients/clock.ts"
import { percentilesOf } from "../clients/percentiles.ts"
import { compareToFirst, figure, measured, type Outcome } from "../harness/row.ts"
import { type Server, tokenFor } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import { DEAF_USER, type Group, play, type Stage } from "../harness/stage.ts"
import { insert } from "../harness/write.ts"

const CHANGES = 200_000
const QUICK_CHANGES = 40_000
const TRANSACTION = 100
const CONNECTIONS = 40
const MISSED = 10
const ROUNDS = 10
/** The forty have come, and are being read for. */
const HEAD_START_MS = 100
const PATIENCE_MS = 120_000
/** Room for nothing. */
const SETTINGS = { REPLAY_BUFFER_MB: "0.0001" }

const NAMES = [
  `${MISSED} changes, nobody else returns`,
  `${MISSED} changes, beside ${CONNECTIONS} old cursors of one user`,
]

export const returns: Group = async function* (stage) {
  const changes = stage.choice.changes ?? (stage.choice.quick ? QUICK_CHANGES : CHANGES)
  const command = `npm run bench -- returns --changes ${changes}`
  const cells = NAMES.map((name) => ({ group: "returns", name, command }))
  const measure = async function* (server: Server): AsyncGenerator<Outcome> {
    const { near, far } = await fill(stage, changes)
    yield await comeBack(stage, server, near)
    yield await comeBack(stage, server, near, far)
  }
  yield* compareToFirst(await play(stage, "ours", cells, measure, SETTINGS), ["p50", "max"])
}

/** Fills the log. @returns the cursor before the last few changes, and others that lie all over it. */
async function fill(stage: Stage, changes: number): Promise<{ near: string; far: string[] }> {
  const session = await stage.session()
  const cursorNow = async () => {
    const { rows } = await session.query("select relay.cursor() as cursor")
    return encodeURIComponent((rows[0] as { cursor: string }).cursor)
  }
  const far: string[] = []
  for (let written = 0; written < changes; written += TRANSACTION) {
    if (written >= (far.length * changes) / CONNECTIONS) far.push(await cursorNow())
    await insert(session, OWN_TABLE, TRANSACTION)
  }
  const near = await cursorNow()
  await insert(session, OWN_TABLE, MISSED)
  return { near, far }
}

/** @param far where another user returns from meanwhile. */
async function comeBack(
  stage: Stage,
  server: Server,
  near: string,
  far?: readonly string[],
): Promise<Outcome> {
  const times: number[] = []
  const one = stage.audience(server, [`/ws?cursor=${near}`])
  for (let round = 0; round < (stage.choice.quick ? ROUNDS / 2 : ROUNDS); round++) {
    const others = far && returnToo(stage, server, far)
    if (others !== undefined) await sleep(HEAD_START_MS)
    await one.begin()
    const began = now()
    await one.connect(1)
    const { reached, at } = await one.reach(MISSED, PATIENCE_MS)
    await one.hangUp()
    await others?.stop()
    if (!reached) return { kind: "invalid", reason: "not everything that was missed came" }
    times.push((at - began) / 1_000)
  }
  if (!server.alive()) return { kind: "invalid", reason: "the server died" }
  const { p50, max } = percentilesOf(times)
  return measured(figure("p50", p50, "ms"), figure("max", max, "ms"))
}

function returnToo(stage: Stage, server: Server, far: readonly string[]): Audience {
  const where = encodeURIComponent(JSON.stringify({ votes: -1 }))
  const target = { ...server.target, headers: { Authorization: `Bearer ${tokenFor(DEAF_USER)}` } }
  const others = stage.audience(
    { ...server, target },
    far.map((cursor) => `/ws?cursor=${cursor}&where=${where}`),
  )
  // Some may be refused, and when they are stopped all are.
  others.connect(CONNECTIONS).catch(() => {})
  return others
}
