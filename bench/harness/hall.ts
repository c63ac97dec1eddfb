/**
 * The hall: a crowd of clients, and at random places among them a few witnesses, in a process with nothing else to do. They
 * note when each probe comes. A server that goes through its clients in order has no favourites.
 */

import { setTimeout as sleep } from "node:timers/promises"
import type pg from "pg"
import type { Audience } from "../clients/audience.ts"
import { now } from "../clients/clock.ts"
import type { Server } from "./server.ts"
import type { Stage } from "./stage.ts"
import { faultOf } from "./validity.ts"
import { insert } from "./write.ts"

const WITNESSES = 16

interface Seats {
  audience: Audience
  clients: number
}
/** The witnesses, and the crowd if there is one. */
export type Hall = readonly [witnesses: Seats, crowd?: Seats]

export async function fillHall(stage: Stage, server: Server, clients: number): Promise<Hall> {
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

/** Resolves when everybody has so many of the probes. */
export async function reachAll(hall: Hall, probes: number): Promise<void> {
  for (const { audience, clients } of seatsOf(hall)) await audience.reach(probes * clients)
}

/** Writes probes, one each time that it calls `write`. */
export type Writing = (write: (session: pg.Client) => Promise<void>) => Promise<void>

/** So many changes a second from several sessions that do not wait for each other, with random pauses, as long as there are more. */
export const writeBusily =
  (sessions: readonly pg.Client[], perSecond: number, more: () => boolean): Writing =>
  async (write) => {
    const writer = async (session: pg.Client) => {
      while (more()) {
        await sleep(-Math.log(Math.random()) * ((sessions.length * 1_000) / perSecond))
        await write(session)
      }
    }
    await Promise.all(sessions.map(writer))
  }

/**
 * Writes probes and waits until everybody has all of them.
 * @returns from the answer to COMMIT to the arrival, in milliseconds, of each probe at each witness; or why the run is not valid.
 */
export async function probe(
  server: Server,
  hall: Hall,
  writing: Writing,
): Promise<{ ok: true; times: number[] } | { ok: false; reason: string }> {
  for (const { audience } of seatsOf(hall)) await audience.begin()
  const written: Array<{ began: number; committed: number }> = []
  await writing(async (session) => {
    const times = { began: now(), committed: 0 }
    const number = written.push(times) - 1
    await insert(session, server.table, 1, `probe:${number}`)
    times.committed = now()
  })
  await reachAll(hall, written.length)
  const reports = await Promise.all(seatsOf(hall).map(({ audience }) => audience.report()))
  const seen = reports[0]?.probes ?? []
  const sinceBegin = seen.map(({ probe, at }) => at - (written[probe]?.began ?? Number.POSITIVE_INFINITY))
  const reason = faultOf({
    reports,
    expected: written.length,
    alive: server.alive(),
    shortest: Math.min(...sinceBegin),
    punctual: reports.slice(0, 1),
  })
  if (reason !== undefined) return { ok: false, reason }
  return { ok: true, times: seen.map(({ probe, at }) => (at - (written[probe]?.committed ?? 0)) / 1_000) }
}

const seatsOf = ([witnesses, crowd]: Hall): Seats[] =>
  crowd === undefined ? [witnesses] : [witnesses, crowd]
