/**
 * Promptness: how long the relay's event loop keeps others waiting while it has all that it can do. Its own measure of
 * that, and what somebody sees who asks for its health all the time.
 */

import { now } from "../clients/clock.ts"
import { figure, measured } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import { type Group, play } from "../harness/stage.ts"
import { faultOf } from "../harness/validity.ts"
import { insert } from "../harness/write.ts"

const SECONDS = 8
const QUICK_SECONDS = 3
const WRITERS = 16
/** The clients of a huge INSERT. */
const FEW = 200
/** How long what was written may be under way after the last commit. */
const PATIENCE_MS = 90_000
/** prom-client's gauge is the time between two ticks of a timer of so long. */
const TIMER_MS = 10
const LAG = /^nodejs_eventloop_lag_p99_seconds (\S+)$/m

export const prompt: Group = async function* (stage) {
  const { quick, clients, changes } = stage.choice
  const both = clients === undefined && changes === undefined

  const runOf = (name: string, options: string, clients: number, work: () => Promise<number>) => {
    const command = `npm run bench -- prompt ${options}`
    return play(stage, "ours", [{ group: "prompt", name, command }], async function* (server) {
      const audience = stage.audience(server)
      await audience.connect(clients)
      const health = await stage.watch(server)
      await audience.begin()
      await lagOf(server) // asking begins a new measurement
      const began = now()
      const written = await work()
      const seconds = (now() - began) / 1e6
      const { at } = await audience.reach(written * clients, PATIENCE_MS)
      const lag = await lagOf(server)
      const { p50, p99, max } = await health.stop()
      // What is asked is how prompt the relay is; a generator that is the slower one does not change that.
      const report = { ...(await audience.report()), cpuShare: 0 }
      const fault = faultOf({ reports: [report], expected: written, alive: server.alive() })
      if (fault !== undefined) yield { kind: "invalid", reason: fault }
      else
        yield measured(
          figure("event loop p99", Math.max(0, lag * 1_000 - TIMER_MS), "ms"),
          figure("health p50", p50, "ms"),
          figure("health p99", p99, "ms"),
          figure("health max", max, "ms"),
          figure("written", written / seconds, "/s"),
          figure("deliveries", ((written * clients) / (at - began)) * 1e6, "/s"),
        )
    })
  }

  const flatOut = async () => {
    const sessions = await Promise.all(Array.from({ length: WRITERS }, () => stage.session()))
    const ends = now() + (quick ? QUICK_SECONDS : SECONDS) * 1e6
    let written = 0
    await Promise.all(
      sessions.map(async (session) => {
        for (; now() < ends; written++) await insert(session, OWN_TABLE, 1)
      }),
    )
    return written
  }
  for (const count of clients ?? (both ? [quick ? 1_000 : 5_000] : []))
    yield* await runOf(
      `${count.toLocaleString("en")} clients, ${WRITERS} writers flat out`,
      `--clients ${count}`,
      count,
      flatOut,
    )
  for (const count of changes !== undefined ? [changes] : both ? [quick ? 100_000 : 1_000_000] : [])
    yield* await runOf(
      `${FEW} clients, one INSERT of ${count.toLocaleString("en")} rows`,
      `--changes ${count}`,
      FEW,
      async () => {
        await insert(await stage.session(), OWN_TABLE, count)
        return count
      },
    )
}

/** The 99th percentile since it was last asked for. Seconds. */
async function lagOf({ url }: Server): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  const lag = LAG.exec(text)?.[1]
  if (lag === undefined) throw new Error("the relay does not tell its event loop's lag")
  return Number(lag)
}
