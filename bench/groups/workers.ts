/**
 * Workers: what a second process on the same port gives. Two load generators count, because one would be the first
 * that can do no more.
 */

import { now } from "../clients/clock.ts"
import { compareToFirst, figure, measured, type Outcome, type Row } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { OWN_TABLE } from "../harness/session.ts"
import { type Group, play, type Stage } from "../harness/stage.ts"
import { cpuOfAll } from "../harness/usage.ts"
import { faultOf } from "../harness/validity.ts"
import { insert } from "../harness/write.ts"

const SECONDS = 4
const QUICK_SECONDS = 1.5
const WARM_SECONDS = 1
const GENERATORS = 2
const BURST = 50
/** Bursts under way at the same time. */
const WINDOW = 4

export const workers: Group = async function* (stage) {
  const { quick, clients = [2_000] } = stage.choice
  for (const count of clients) {
    const rows: Row[] = []
    for (const processes of [1, 2]) {
      const cell = {
        group: "workers",
        name: `${count.toLocaleString("en")} clients, WORKERS=${processes}`,
        command: `npm run bench -- workers --clients ${count}`,
      }
      const measure = async function* (server: Server) {
        const audiences = Array.from({ length: GENERATORS }, () => stage.audience(server))
        await Promise.all(audiences.map((audience) => audience.connect(count / GENERATORS)))
        const run = { clients: count, audiences, server }
        await broadcast(stage, { ...run, seconds: WARM_SECONDS })
        yield await broadcast(stage, { ...run, seconds: quick ? QUICK_SECONDS : SECONDS })
      }
      rows.push(...(await play(stage, "ours", [cell], measure, { WORKERS: String(processes) })))
    }
    yield* compareToFirst(rows, ["CPU a delivery", "deliveries"])
  }
}

interface Broadcast {
  clients: number
  audiences: ReturnType<Stage["audience"]>[]
  server: Server
  seconds: number
}

async function broadcast(stage: Stage, { clients, audiences, server, seconds }: Broadcast): Promise<Outcome> {
  const session = await stage.session()
  await Promise.all(audiences.map((audience) => audience.begin()))
  const began = now()
  const cpu = cpuOfAll(server.pid)
  const share = (clients / GENERATORS) * BURST
  const reach = async (bursts: number) => {
    const all = await Promise.all(audiences.map((audience) => audience.reach(bursts * share)))
    return all.every(({ reached }) => reached)
  }
  let bursts = 0
  let reached = true
  while (reached && now() < began + seconds * 1e6) {
    await insert(session, OWN_TABLE, BURST)
    bursts++
    reached = await reach(bursts - WINDOW + 1)
  }
  await reach(bursts)
  const micros = now() - began
  const used = cpuOfAll(server.pid) - cpu
  const reports = await Promise.all(audiences.map((audience) => audience.report()))
  // On few cores generators and workers take from each other: that is the result, and no fault of it.
  const judged = reports.map((report) => ({ ...report, cpuShare: 0, loopDelayMs: 0 }))
  const fault = faultOf({ reports: judged, expected: bursts * BURST, alive: server.alive() })
  if (fault !== undefined) return { kind: "invalid", reason: fault }
  const events = reports.reduce((sum, report) => sum + report.events, 0)
  return measured(
    figure("CPU a delivery", used / events, "µs"),
    figure("deliveries", (events / micros) * 1e6, "/s"),
    figure("server's cores", (used / micros) * 100, "%"),
    figure("generators' cores", reports.reduce((sum, { cpuShare }) => sum + cpuShare, 0) * 100, "%"),
  )
}
