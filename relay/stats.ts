/** What a hub counts, and the sum over several. */

import { z } from "zod"

const Counts = z.record(z.string(), z.number())

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
  const merged = (of: (stats: HubStats) => Record<string, number>) => {
    const counts = new Map<string, number>()
    for (const stats of all)
      for (const [name, count] of Object.entries(of(stats))) counts.set(name, (counts.get(name) ?? 0) + count)
    return Object.fromEntries(counts)
  }
  return {
    connections: sum(({ connections }) => connections),
    replaying: sum(({ replaying }) => replaying),
    users: merged(({ users }) => users),
    channels: merged(({ channels }) => channels),
    lanes: sum(({ lanes }) => lanes),
  }
}
