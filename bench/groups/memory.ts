/** Memory: what an idle connection takes of the process that holds it, and what is left when clients have come and gone. */

import { setTimeout as sleep } from "node:timers/promises"
import { compareSubjects, figure, measured, type Row } from "../harness/row.ts"
import { type Group, play } from "../harness/stage.ts"
import { memoryOf } from "../harness/usage.ts"
import { faultOf } from "../harness/validity.ts"

/** Come and go before anything is counted, so that code and buffers that everybody shares are there. */
const WARM_CLIENTS = 500
const SETTLE_MS = 3_000
const MB = 1_048_576

export const memory: Group = async function* (stage) {
  const { quick, clients, churn } = stage.choice
  const both = clients === undefined && churn === undefined
  const crowds = clients ?? (both ? [quick ? 2_000 : 10_000] : [])
  const comers = churn !== undefined ? [churn] : both ? [quick ? 10_000 : 100_000] : []
  const rows: Row[] = []
  const settled = async (pid: number) => {
    await sleep(SETTLE_MS)
    return memoryOf(pid)
  }
  for (const subject of stage.servers) {
    for (const count of crowds) {
      const cell = {
        group: "memory",
        name: `${count.toLocaleString("en")} idle connections`,
        command: `npm run bench -- memory --clients ${count}`,
      }
      const idle = await play(stage, subject, [cell], async function* (server) {
        const audience = stage.audience(server)
        await audience.churn(WARM_CLIENTS)
        const before = await settled(server.pid)
        await audience.begin()
        await audience.connect(count)
        const after = await settled(server.pid)
        // Connecting may take all that the generator has; nothing here depends on its pace.
        const report = { ...(await audience.report()), cpuShare: 0 }
        const fault = faultOf({ reports: [report], expected: 0, alive: server.alive() })
        if (fault !== undefined) yield { kind: "invalid", reason: fault }
        else
          yield measured(
            figure("a connection", (after - before) / count / 1_024, "KB"),
            figure("before", before / MB, "MB"),
            figure("after", after / MB, "MB"),
          )
      })
      rows.push(...idle)
    }
    for (const count of comers) {
      const cell = {
        group: "memory",
        name: `${count.toLocaleString("en")} came and went`,
        command: `npm run bench -- memory --churn ${count}`,
      }
      const gone = await play(stage, subject, [cell], async function* (server) {
        const audience = stage.audience(server)
        await audience.churn(WARM_CLIENTS)
        const before = await settled(server.pid)
        await audience.churn(count)
        const after = await settled(server.pid)
        if (!server.alive()) yield { kind: "invalid", reason: "the server died" }
        else
          yield measured(
            figure("left", (after - before) / MB, "MB"),
            figure("before", before / MB, "MB"),
            figure("after", after / MB, "MB"),
          )
      })
      rows.push(...gone)
    }
  }
  yield* compareSubjects(rows, ["a connection", "left"], ["nchan", "plain ws"])
}
