/** Whether a run may be believed. One that may not has a reason in the place of its figures. */

import type { Report } from "./load.ts"

export interface Evidence {
  /** Of each load generator, at the end of the run. */
  reports: Report[]
  /** How many events each client must have, exactly; undefined where that is not known. */
  expected: number | undefined
  /** The server under test was there at the end. */
  alive: boolean
  /** Where a probe's times are compared: the shortest time from before its commit to its receipt. Microseconds. */
  shortest?: number | undefined
}

/** Above this share of a core a load generator may be what is measured. */
export const MOST_CPU = 0.9

/** @returns why the run is not valid; undefined if it is. */
export function faultOf({ reports, expected, alive, shortest }: Evidence): string | undefined {
  if (!alive) return "the server died"
  const clients = sum(reports, ({ clients }) => clients)
  const open = sum(reports, ({ open }) => open)
  if (open < clients) return `${clients - open} of ${clients} clients lost their connection`
  if (expected !== undefined) {
    const least = Math.min(...reports.map((report) => report.least))
    const most = Math.max(...reports.map((report) => report.most))
    if (least < expected) return `not everything was delivered: a client has ${least} of ${expected} events`
    if (most > expected) return `more was delivered than written: a client has ${most} of ${expected} events`
  }
  if (shortest !== undefined && shortest < 0) return "clock skew: an event was received before it was written"
  const busiest = Math.max(...reports.map(({ cpuShare }) => cpuShare))
  if (busiest > MOST_CPU) return `the load generator was saturated: ${Math.round(busiest * 100)} % of a core`
  return undefined
}

const sum = (reports: Report[], of: (report: Report) => number): number =>
  reports.reduce((total, report) => total + of(report), 0)
