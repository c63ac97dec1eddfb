/** Counts: what a hub and a process count, and the sums over several. */

import { z } from "zod"
import type { Metrics } from "./metrics.ts"

export const Counts = z.record(z.string(), z.number())
export type Counts = z.infer<typeof Counts>

export const HubStats = z.object({
  connections: z.number(),
  /** How many of them are not live yet. */
  replaying: z.number(),
  users: Counts,
  channels: Counts,
  lanes: z.number(),
})
export type HubStats = z.infer<typeof HubStats>

/** The sum of several. A user or a channel that several hubs have counts once. */
export function sumOf(all: readonly HubStats[]): HubStats {
  const sum = (of: (stats: HubStats) => number) => all.reduce((total, stats) => total + of(stats), 0)
  return {
    connections: sum(({ connections }) => connections),
    replaying: sum(({ replaying }) => replaying),
    users: sumOfCounts(all.map(({ users }) => users)),
    channels: sumOfCounts(all.map(({ channels }) => channels)),
    lanes: sum(({ lanes }) => lanes),
  }
}

/** The sum, name by name. */
export function sumOfCounts(all: readonly Counts[]): Counts {
  const sums = new Map<string, number>()
  for (const counts of all)
    for (const [name, count] of Object.entries(counts)) sums.set(name, (sums.get(name) ?? 0) + count)
  return Object.fromEntries(sums)
}

export const Totals = z.object({
  /** Changes read from the log. */
  changes: z.number(),
  /** Changes handed to connections. */
  deliveries: z.number(),
  /** Upgrades that became connections. */
  connects: z.number(),
})
export type Totals = z.infer<typeof Totals>

type Counter = Metrics["connects"] | Metrics["events"] | Metrics["deliveries"]

async function totalOf(counter: Counter, labels: Readonly<Record<string, string>> = {}): Promise<number> {
  const { values } = await counter.get()
  const fits = (found: Partial<Record<string, string | number>>) =>
    Object.entries(labels).every(([label, value]) => found[label] === value)
  return values.reduce((sum, { value, labels }) => (fits(labels) ? sum + value : sum), 0)
}

/** The totals of one process. */
export async function totalsOf(metrics: Metrics): Promise<Totals> {
  const [changes, deliveries, connects] = await Promise.all([
    totalOf(metrics.events),
    totalOf(metrics.deliveries),
    totalOf(metrics.connects, { result: "accepted" }),
  ])
  return { changes, deliveries, connects }
}

/** The totals of several processes. */
export function sumOfTotals(all: readonly Totals[]): Totals {
  const sum = (of: (totals: Totals) => number) => all.reduce((total, totals) => total + of(totals), 0)
  return {
    changes: sum(({ changes }) => changes),
    deliveries: sum(({ deliveries }) => deliveries),
    connects: sum(({ connects }) => connects),
  }
}
