/** What a hub counts, and the sum over several. */

import { z } from "zod"

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

/** A user or a channel that several have is one. */
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

/** Name by name. */
export function sumOfCounts(all: readonly Counts[]): Counts {
  const sums = new Map<string, number>()
  for (const counts of all)
    for (const [name, count] of Object.entries(counts)) sums.set(name, (sums.get(name) ?? 0) + count)
  return Object.fromEntries(sums)
}
