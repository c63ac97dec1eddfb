/** Totals: what was counted since the start. Whoever asks twice has the rates. */

import { z } from "zod"
import type { Metrics } from "./metrics.ts"

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

/** Of one process. */
export async function totalsOf(metrics: Metrics): Promise<Totals> {
  const [changes, deliveries, connects] = await Promise.all([
    totalOf(metrics.events),
    totalOf(metrics.deliveries),
    totalOf(metrics.connects, { result: "accepted" }),
  ])
  return { changes, deliveries, connects }
}

/** Of several processes. */
export function sumOfTotals(all: readonly Totals[]): Totals {
  const sum = (of: (totals: Totals) => number) => all.reduce((total, totals) => total + of(totals), 0)
  return {
    changes: sum(({ changes }) => changes),
    deliveries: sum(({ deliveries }) => deliveries),
    connects: sum(({ connects }) => connects),
  }
}
