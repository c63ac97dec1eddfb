/**
 * Fan-out: what it costs to tell a thousand clients, in CPU time of the process that holds the sockets and in deliveries
 * a second. A burst is a transaction of so many changes; the next is written when everybody has all of the last.
 */

import type { Audience } from "../clients/audience.ts"
import { now } from "../clients/clock.ts"
import { compareSubjects, figure, measured, type Outcome, type Row } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { type Group, play, type Stage } from "../harness/stage.ts"
import { cpuOf } from "../harness/usage.ts"
import { faultOf } from "../harness/validity.ts"
import { insert } from "../harness/write.ts"

/** A run is so long that hundredths of a second of CPU can be told apart. */
const SECONDS = 4
const QUICK_SECONDS = 1.5
/** Before it, for compilers and buffers. */
const WARM_SECONDS = 1
/** How much goes through is asked with several bursts under way at the same time. */
const SATURATING = { burst: 50, window: 4 }

export const fanout: Group = async function* (stage) {
  const { quick, clients = [1_000], burst, window = 1 } = stage.choice
  const chosen = (burst ?? [1, 10, 50]).map((burst) => ({ burst, window }))
  const runs = burst === undefined ? [...chosen, SATURATING] : chosen
  const seconds = quick ? QUICK_SECONDS : SECONDS
  for (const count of clients) {
    const cells = runs.map(({ burst, window }) => ({
      group: "fanout",
      name: `${count.toLocaleString("en")} clients, bursts of ${burst}${window > 1 ? `, ${window} under way` : ""}`,
      command: `npm run bench -- fanout --clients ${count} --burst ${burst}${window > 1 ? ` --window ${window}` : ""}`,
    }))
    const rows: Row[] = []
    for (const subject of stage.servers)
      rows.push(
        ...(await play(stage, subject, cells, async function* (server) {
          const audience = stage.audience(server)
          await audience.connect(count)
          for (const run of runs) {
            await broadcast(stage, server, audience, { ...run, clients: count, seconds: WARM_SECONDS })
            yield await broadcast(stage, server, audience, { ...run, clients: count, seconds })
          }
        })),
      )
    yield* compareSubjects(rows, ["CPU a delivery", "deliveries"], ["nchan", "plain ws"])
  }
}

interface Broadcast {
  clients: number
  burst: number
  window: number
  seconds: number
}

/** Writes bursts for so long, and tells what their deliveries cost. */
async function broadcast(
  stage: Stage,
  server: Server,
  audience: Audience,
  { clients, burst, window, seconds }: Broadcast,
): Promise<Outcome> {
  const session = await stage.session()
  await audience.begin()
  const began = now()
  const cpu = cpuOf(server.pid)
  const each = clients * burst
  let bursts = 0
  let reached = true
  while (reached && now() < began + seconds * 1e6) {
    await insert(session, server.table, burst)
    bursts++
    reached = (await audience.reach((bursts - window + 1) * each)).reached
  }
  await audience.reach(bursts * each)
  const micros = now() - began
  const used = cpuOf(server.pid) - cpu
  const report = await audience.report()
  const fault = faultOf({ reports: [report], expected: bursts * burst, alive: server.alive() })
  if (fault !== undefined) return { kind: "invalid", reason: fault }
  return measured(
    figure("CPU a delivery", used / report.events, "µs"),
    figure("deliveries", (report.events / micros) * 1e6, "/s"),
    figure("server's core", (used / micros) * 100, "%"),
    figure("generator's core", report.cpuShare * 100, "%"),
  )
}
