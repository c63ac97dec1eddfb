/** Whether a run may be believed. One that may not has a reason in the place of its figures. */

import type { Report } from "../clients/load.ts"

export interface Evidence {
  /** Of each load generator, at the end of the run. */
  reports: Report[]
  /** How many events each client must have, exactly; undefined where that is not known. */
  expected: number | undefined
  /** How many all of them must have together, where that is known and `expected` is not. */
  total?: number
  /** The server under test was there at the end. */
  alive: boolean
  /** Where a probe's times are compared: the shortest time from before its commit to its receipt. Microseconds. */
  shortest?: number | undefined
  /** Of those whose clocks are read at each arrival: their event loops must not be late. */
  punctual?: Report[]
}

/** Above this share of a core a load generator may be what is measured. */
const MOST_CPU = 0.9
/** Above this, what a load generator reads from its clock is when it had time. Milliseconds, 99th percentile. */
const MOST_DELAY_MS = 20

/** @returns why the run is not valid; undefined if it is. */
export function faultOf({
  reports,
  expected,
  total,
  alive,
  shortest,
  punctual = [],
}: Evidence): string | undefined {
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
  const events = sum(reports, ({ events }) => events)
  if (total !== undefined && events !== total)
    return `not everything was delivered, once: ${events} of ${total} events`
  if (shortest !== undefined && shortest < 0) return "clock skew: an event was received before it was written"
  const busiest = Math.max(...reports.map(({ cpuShare }) => cpuShare))
  if (busiest > MOST_CPU) return `the load generator was saturated: ${Math.round(busiest * 100)} % of a core`
  const latest = Math.max(0, ...punctual.map(({ loopDelayMs }) => loopDelayMs))
  if (latest > MOST_DELAY_MS)
    return `the load generator's own event loop was late by ${Math.round(latest)} ms`
  return undefined
}

const sum = (reports: Report[], of: (report: Report) => number): number =>
  reports.reduce((total, report) => total + of(report), 0)
