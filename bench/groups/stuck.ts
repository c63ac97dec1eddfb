/**
 * Stuck clients: what those who read have of some beside them whose sockets take nothing any more. The same writers write
 * beside nobody, beside stuck clients, and beside such as come back at once whenever they are cut, in turns.
 */

import { setTimeout as sleep } from "node:timers/promises"
import { now } from "../clients/clock.ts"
import { percentilesOf } from "../clients/percentiles.ts"
import { fillHall, type Hall, probe, type Writing, writeBusily } from "../harness/hall.ts"
import { compareToFirst, type Figure, figure, measured, type Outcome } from "../harness/row.ts"
import type { Server } from "../harness/server.ts"
import { DEAF_USER, type Deaf, type Group, play, type Stage } from "../harness/stage.ts"
import { memoryOf } from "../harness/usage.ts"
import { costlyFilters } from "./costly-filters.ts"
import { largeBatches } from "./large-batches.ts"
import { manyLanes } from "./many-lanes.ts"

const CLIENTS = 1_000
const STUCK = 10
const ROUNDS = 3
/** A socket that takes nothing is cut after ten seconds. */
const SECONDS = 14
/** Time to come back and be cut again. */
const AGAIN_SECONDS = 28
const WARM_SECONDS = 2
const WRITERS = 4
/** What the writers write together in a second, and what that may make the server deliver at most. */
const CHANGES = 200
const DELIVERIES = 40_000
/** More than a system holds for a socket that is not read, in messages to the user who stops reading. */
const STUFFING_MESSAGES = 160
const STUFFING_BYTES = 100_000
const SAMPLE_MS = 500
const MB = 1_048_576

interface Kind {
  name: string
  stuck: number
  again: boolean
  seconds: number
}

const KINDS: Kind[] = [
  { name: "nobody stuck", stuck: 0, again: false, seconds: SECONDS },
  { name: `${STUCK} stuck`, stuck: STUCK, again: false, seconds: SECONDS },
  { name: `${STUCK} stuck who come back at once`, stuck: STUCK, again: true, seconds: AGAIN_SECONDS },
]

/** What the rounds of a kind have shown so far. */
class Findings {
  readonly times: number[] = []
  readonly lasted: number[] = []
  fault: string | undefined
  closed = 0
  #resident = 0
  #queued = 0
  #lanes = 0

  see({ resident, queued, lanes }: Sample): void {
    this.#resident = Math.max(this.#resident, resident)
    this.#queued = Math.max(this.#queued, queued)
    this.#lanes = Math.max(this.#lanes, lanes)
  }

  outcome(): Outcome {
    if (this.fault !== undefined) return { kind: "invalid", reason: this.fault }
    const { p50, p99, max } = percentilesOf(this.times)
    const figures = [
      figure("p50", p50, "ms"),
      figure("p99", p99, "ms"),
      figure("max", max, "ms"),
      figure("memory at most", this.#resident / MB, "MB"),
      figure("in sockets at most", this.#queued / MB, "MB"),
      figure("in lanes at most", this.#lanes / MB, "MB"),
    ]
    return measured(...figures, ...this.#cuts())
  }

  #cuts(): Figure[] {
    if (this.closed === 0) return []
    const { p50, max } = percentilesOf(this.lasted)
    return [
      figure("closed with 4008", this.closed, "times"),
      figure("half of them gone after", p50 / 1_000, "s"),
      figure("all of them after", max / 1_000, "s"),
    ]
  }
}

export const stuck: Group = async function* (stage) {
  const { quick, clients = [quick ? 200 : CLIENTS] } = stage.choice
  for (const count of clients) {
    const rate = Math.min(CHANGES, DELIVERIES / count)
    const cells = KINDS.map(({ name }) => ({
      group: "stuck",
      name: `${count.toLocaleString("en")} clients, ${name}`,
      command: `npm run bench -- stuck --clients ${count}`,
    }))
    const rows = await play(stage, "ours", cells, async function* (server) {
      const hall = await fillHall(stage, server, count)
      const deaf = stage.deaf(server)
      const sessions = await Promise.all(Array.from({ length: WRITERS }, () => stage.session()))
      const busily = (seconds: number): Writing => {
        const ends = now() + seconds * 1e6
        return writeBusily(sessions, rate, () => now() < ends)
      }
      await probe(server, hall, busily(WARM_SECONDS))
      const all = KINDS.map((kind) => ({ kind, findings: new Findings() }))
      for (let round = 1; round <= (quick ? 1 : ROUNDS); round++) {
        for (const { kind, findings } of all) {
          stage.note(`round ${round}: ${kind.name}`)
          await deaf.connect(kind.stuck, kind.again)
          await stuff(stage)
          await listen(server, hall, findings, busily(kind.seconds))
          await leave(deaf, kind, findings)
        }
      }
      for (const { findings } of all) yield findings.outcome()
    })
    yield* compareToFirst(rows, ["p50", "p99", "max", "memory at most"])
  }
  yield* largeBatches(stage)
  yield* costlyFilters(stage)
  yield* manyLanes(stage)
}

/** Fills the sockets of the deaf, if there are any, so that they are stuck from now on. */
async function stuff(stage: Stage): Promise<void> {
  const session = await stage.session()
  const message = JSON.stringify("x".repeat(STUFFING_BYTES))
  for (let n = 0; n < STUFFING_MESSAGES; n++)
    await session.query("select relay.send_to_user($1, $2)", [DEAF_USER, message])
}

/** Measures one round, and looks all the while at what the relay holds. */
async function listen(server: Server, hall: Hall, findings: Findings, writing: Writing): Promise<void> {
  const closedBefore = await closedBy(server)
  let going = true
  const looking = (async () => {
    while (going) {
      findings.see(await sample(server))
      await sleep(SAMPLE_MS)
    }
  })()
  const probed = await probe(server, hall, writing)
  going = false
  await looking
  findings.closed += (await closedBy(server)) - closedBefore
  if (probed.ok) findings.times.push(...probed.times)
  else findings.fault ??= probed.reason
}

/** Lets the deaf go. A round in which they were not stuck says nothing. */
async function leave(deaf: Deaf, { stuck, again }: Kind, findings: Findings): Promise<void> {
  const { lasted, refused } = await deaf.leave()
  findings.lasted.push(...lasted)
  if (lasted.length < stuck) findings.fault ??= `${lasted.length} of ${stuck} stuck clients were cut`
  if (again && refused.length > 0) findings.fault ??= `a stuck client could not come back: ${refused[0]}`
}

interface Sample {
  /** Bytes. */
  resident: number
  queued: number
  lanes: number
}

async function sample(server: Server): Promise<Sample> {
  const metrics = await metricsOf(server)
  const [queued, lanes] = [metrics("relay_queued_bytes"), metrics("relay_lane_bytes")]
  return { resident: memoryOf(server.pid), queued, lanes }
}

const closedBy = async (server: Server) => (await metricsOf(server))('relay_closes_total{code="4008"}')

/** @returns what tells the value of a series; 0 of one that is not there. */
async function metricsOf({ url }: Server): Promise<(series: string) => number> {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split("\n")
  return (series) =>
    Number(
      lines
        .find((line) => line.startsWith(`${series} `))
        ?.split(" ")
        .at(-1) ?? 0,
    )
}
