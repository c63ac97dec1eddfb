/**
 * Latency: from the moment at which the writer has the answer to its COMMIT to the moment at which a client has the
 * change. A few clients at random places among the others are watched, by a process with nothing else to do.
 */

import { setTimeout as sleep } from "node:timers/promises"
import type pg from "pg"
import type { Audience } from "../audience.ts"
import { now } from "../clock.ts"
import { percentilesOf } from "../percentiles.ts"
import { compareSubjects, figure, measured, type Outcome, type Row } from "../row.ts"
import type { Server } from "../server.ts"
import { type Group, play, type Stage } from "../stage.ts"
import { faultOf } from "../validity.ts"
import { insert } from "../write.ts"

const EVENTS = 200
const QUICK_EVENTS = 40
const WARM_EVENTS = 30
/** Between the arrival of one change and the writing of the next, on a quiet evening. Milliseconds. */
const PAUSE_MS = 10
const WITNESSES = 16
/** Writers on a busy evening; they do not wait for each other, and their pauses are random. */
const WRITERS = 4
/** What they write together in a second, and what that may make the server deliver at most. */
const BUSY_CHANGES = 200
const BUSY_DELIVERIES = 40_000

/** Times of a probe. Microseconds. */
interface Written {
  began: number
  committed: number
}
type Writing = (write: (session: pg.Client) => Promise<void>) => Promise<void>

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
          const hall = await seat(stage, server, count)
          const session = await stage.session()
          const sessions = await Promise.all(Array.from({ length: WRITERS }, () => stage.session()))
          const quiet =
            (events: number): Writing =>
            async (write) => {
              for (let n = 1; n <= events; n++) {
                await write(session)
                for (const { audience, clients } of hall) await audience.reach(n * clients)
                await sleep(PAUSE_MS)
              }
            }
          const busy: Writing = async (write) => {
            let left = events
            const writer = async (session: pg.Client) => {
              while (left-- > 0) {
                await sleep(-Math.log(Math.random()) * ((WRITERS * 1_000) / rate))
                await write(session)
              }
            }
            await Promise.all(sessions.map(writer))
          }
          await probe(server, hall, quiet(WARM_EVENTS))
          yield await probe(server, hall, quiet(events))
          yield await probe(server, hall, busy)
        })),
      )
    yield* compareSubjects(rows, ["p50", "p99"], ["nchan", "plain ws"])
  }
}

interface Seats {
  audience: Audience
  clients: number
}

/** Seats the witnesses at random places among the crowd: a server that goes through its clients in order has no favourites. */
async function seat(stage: Stage, server: Server, clients: number): Promise<Seats[]> {
  const witnesses: Seats = { audience: stage.audience(server), clients: Math.min(WITNESSES, clients) }
  if (clients === witnesses.clients) {
    await witnesses.audience.connect(clients)
    return [witnesses]
  }
  const crowd: Seats = { audience: stage.audience(server), clients: clients - witnesses.clients }
  const places = Array.from({ length: witnesses.clients }, () => Math.floor(Math.random() * crowd.clients))
  let seated = 0
  for (const place of places.sort((a, b) => a - b)) {
    await crowd.audience.connect(place - seated)
    await witnesses.audience.connect(1)
    seated = place
  }
  await crowd.audience.connect(crowd.clients - seated)
  return [witnesses, crowd]
}

async function probe(server: Server, hall: Seats[], writing: Writing): Promise<Outcome> {
  for (const { audience } of hall) await audience.begin()
  const written: Written[] = []
  await writing(async (session) => {
    const times = { began: now(), committed: 0 }
    const number = written.push(times) - 1
    await insert(session, server.table, 1, `probe:${number}`)
    times.committed = now()
  })
  for (const { audience, clients } of hall) await audience.reach(written.length * clients)
  const reports = await Promise.all(hall.map(({ audience }) => audience.report()))
  const seen = reports[0]?.probes ?? []
  const sinceBegin = seen.map(({ probe, at }) => at - (written[probe]?.began ?? Number.POSITIVE_INFINITY))
  const fault = faultOf({
    reports,
    expected: written.length,
    alive: server.alive(),
    shortest: Math.min(...sinceBegin),
    punctual: reports.slice(0, 1),
  })
  if (fault !== undefined) return { kind: "invalid", reason: fault }
  const { p50, p90, p99 } = percentilesOf(
    seen.map(({ probe, at }) => (at - (written[probe]?.committed ?? 0)) / 1_000),
  )
  return measured(figure("p50", p50, "ms"), figure("p90", p90, "ms"), figure("p99", p99, "ms"))
}
