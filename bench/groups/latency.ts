/**
 * Latency: from the moment at which the writer has the answer to its COMMIT to the moment at which a client has the
 * change. A few clients at random places among the others are watched, by a process with nothing else to do.
 */

import { setTimeout as sleep } from "node:timers/promises"
import { percentilesOf } from "../clients/percentiles.ts"
import { fillHall, type Hall, probe, reachAll, type Writing, writeBusily } from "../harness/hall.ts"
import { compareSubjects, figure, measured, type Outcome, type Row } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { type Group, play } from "../harness/stage.ts"

const EVENTS = 200
const QUICK_EVENTS = 40
const WARM_EVENTS = 30
/** Between the arrival of one change and the writing of the next, on a quiet evening. Milliseconds. */
const PAUSE_MS = 10
/** Writers on a busy evening; they do not wait for each other, and their pauses are random. */
const WRITERS = 4
/** What they write together in a second, and what that may make the server deliver at most. */
const BUSY_CHANGES = 200
const BUSY_DELIVERIES = 40_000

export const latency: Group = async function* (stage) {
  const { quick, clients = quick ? [1, 1_000] : [1, 100, 1_000, 5_000] } = stage.choice
  const events = quick ? QUICK_EVENTS : EVENTS
  for (const count of clients) {
    const rate = Math.min(BUSY_CHANGES, BUSY_DELIVERIES / count)
    const cells = ["quiet", `${rate} changes/s`].map((name) => ({
      group: "latency",
      name: `${count.toLocaleString("en")} ${count === 1 ? "client" : "clients"}, ${name}`,
      command: `npm run bench -- latency --clients ${count}`,
    }))
    const rows: Row[] = []
    for (const subject of stage.servers)
      rows.push(
        ...(await play(stage, subject, cells, async function* (server) {
          const hall = await fillHall(stage, server, count)
          const session = await stage.session()
          const sessions = await Promise.all(Array.from({ length: WRITERS }, () => stage.session()))
          const quiet =
            (events: number): Writing =>
            async (write) => {
              for (let n = 1; n <= events; n++) {
                await write(session)
                await reachAll(hall, n)
                await sleep(PAUSE_MS)
              }
            }
          await measure(server, hall, quiet(WARM_EVENTS))
          yield await measure(server, hall, quiet(events))
          let left = events
          yield await measure(
            server,
            hall,
            writeBusily(sessions, rate, () => left-- > 0),
          )
        })),
      )
    yield* compareSubjects(rows, ["p50", "p99"], ["nchan", "plain ws"])
  }
}

async function measure(server: Server, hall: Hall, writing: Writing): Promise<Outcome> {
  const probed = await probe(server, hall, writing)
  if (!probed.ok) return { kind: "invalid", reason: probed.reason }
  const { p50, p90, p99 } = percentilesOf(probed.times)
  return measured(figure("p50", p50, "ms"), figure("p90", p90, "ms"), figure("p99", p99, "ms"))
}
