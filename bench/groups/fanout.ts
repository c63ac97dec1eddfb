/**
 * Fan-out: what it costs to tell a thousand clients, in deliveries a second and in CPU time of the process that holds
 * the sockets. A burst is a transaction of so many changes; the next is written when everybody has all of the last.
 */

import { now } from "../clock.ts"
import { compare, figure, measured, type Outcome, type Row } from "../row.ts"
import { AbsentError, type Server, type ServerName } from "../server.ts"
import type { Group, Stage } from "../stage.ts"
import { cpuOf } from "../usage.ts"
import { faultOf } from "../validity.ts"
import { insert } from "../write.ts"

/** A run is so long that hundredths of a second of CPU can be told apart. */
const SECONDS = 4
const QUICK_SECONDS = 1.5
/** Before it, for compilers and buffers. */
const WARM_SECONDS = 1
/** Bursts that lie on the way at the same time, where it is asked how much goes through. */
const WINDOW = 4
const SATURATING_BURST = 50

interface Run {
  name: string
  burst: number
  window: number
}

export const fanout: Group = async function* (stage) {
  const { clients = [1_000], burst: bursts = [1, 10, 50] } = stage.choice
  const runs: Run[] = bursts.map((burst) => ({ name: `bursts of ${burst}`, burst, window: 1 }))
  if (stage.choice.burst === undefined)
    runs.push({ name: "saturated", burst: SATURATING_BURST, window: WINDOW })
  for (const count of clients) {
    const rows: Row[] = []
    for (const name of stage.servers) rows.push(...(await play(stage, name, count, runs)))
    yield* compare(rows, ["CPU a delivery", "deliveries"], ["nchan", "plain ws"])
  }
}

async function play(stage: Stage, name: ServerName, clients: number, runs: Run[]): Promise<Row[]> {
  const rowOf = (run: Run, outcome: Outcome): Row => ({
    group: "fanout",
    name: `${clients.toLocaleString("en")} clients, ${run.name}`,
    subject: name,
    command: `npm run bench -- fanout --clients ${clients}${run.window > 1 ? "" : ` --burst ${run.burst}`}`,
    outcome,
  })
  try {
    const server = await stage.server(name)
    const audience = stage.audience(server)
    await audience.connect(clients)
    const rows: Row[] = []
    for (const run of runs) {
      stage.note(`fanout: ${name}, ${clients} clients, ${run.name}`)
      rows.push(rowOf(run, await measure(stage, server, audience, clients, run)))
    }
    return rows
  } catch (error) {
    if (!(error instanceof AbsentError)) throw error
    return runs.map((run) => rowOf(run, { kind: "absent", reason: error.message }))
  } finally {
    await stage.clear()
  }
}

async function measure(
  stage: Stage,
  server: Server,
  audience: ReturnType<Stage["audience"]>,
  clients: number,
  { burst, window }: Run,
): Promise<Outcome> {
  const session = await stage.session()
  const step = clients * burst
  let bursts = 0
  const write = async () => {
    await insert(session, server.table, burst)
    bursts++
  }
  const writeFor = async (seconds: number) => {
    await audience.begin()
    bursts = 0
    const ends = now() + seconds * 1e6
    while (now() < ends) {
      await write()
      const { reached } = await audience.reach((bursts - window + 1) * step)
      if (!reached) return
    }
    await audience.reach(bursts * step)
  }
  await writeFor(WARM_SECONDS)
  const began = now()
  const cpu = cpuOf(server.pid)
  await writeFor(stage.choice.quick ? QUICK_SECONDS : SECONDS)
  const micros = now() - began
  const used = cpuOf(server.pid) - cpu
  const report = await audience.report()
  const fault = faultOf({ reports: [report], expected: bursts * burst, alive: server.alive() })
  if (fault !== undefined) return { kind: "invalid", reason: fault }
  return measured(
    figure("CPU a delivery", used / report.events, "µs"),
    figure("deliveries", (report.events / micros) * 1e6, "/s"),
    figure("server's share of a core", (used / micros) * 100, "%"),
    figure("generator's share of a core", report.cpuShare * 100, "%"),
  )
}
