/** The health report for operations, as JSON. Pure but for the clock. */

import { z } from "zod"
import { KeysReport } from "../access/keys.ts"
import { cursorText } from "../change/cursor.ts"
import { DerivedReport } from "../derived/report.ts"
import { BellReport } from "../feed/bell.ts"
import { TrackedTable } from "../feed/changelog.ts"
import type { SourceState } from "../feed/source.ts"
import { UnreadableReport } from "../feed/unreadable.ts"
import { Counts, HubStats, Totals } from "../telemetry/counts.ts"
import { DisconnectsReport } from "../telemetry/disconnects.ts"

export const Report = z.object({
  status: z.enum(["ok", "degraded"]),
  /** What is wrong, in words. */
  problems: z.array(z.string()),
  version: z.string(),
  /** New at each start. Where it differs, totals began at 0, or another relay has answered. */
  instance: z.string(),
  /** When it was made. */
  at: z.iso.datetime(),
  uptime_seconds: z.number(),
  listener: z.object({
    state: z.enum(["up", "down"]),
    since_seconds: z.number(),
    proven_seconds_ago: z.number().nullable(),
    error: z.string().nullable(),
  }),
  feed: z.object({
    state: z.enum(["up", "down"]),
    since_seconds: z.number(),
    lag_seconds: z.number(),
    cursor: z.string().nullable(),
    /** When the relay last read a canary of its own from the log; null if it writes none. */
    proven_seconds_ago: z.number().nullable(),
    bell: BellReport,
    /** Rows of the log that could not be read. Whoever could have seen one was told to load its table again. */
    unreadable: UnreadableReport,
    error: z.string().nullable(),
  }),
  /** What tokens are checked with. */
  keys: KeysReport,
  connections: z.object({
    total: z.number(),
    /** How many have connections, and how many each has. */
    users: z.number(),
    by_user: HubStats.shape.users,
    channels: z.number(),
    by_channel: HubStats.shape.channels,
    lanes: z.number(),
    replaying: z.number(),
  }),
  /** How often each limit on clients was reached. */
  limits_reached: Counts,
  /** How many are in force. */
  revocations: z.number(),
  totals: Totals,
  disconnects: DisconnectsReport,
  /** If several processes share the port: each with its process id. */
  workers: z.array(z.object({ pid: z.number(), connections: z.number() })).optional(),
  tables: z.array(TrackedTable),
  derived: z.array(DerivedReport),
})
export type Report = z.infer<typeof Report>

/** What a report is made of. */
export interface Findings {
  problems: string[]
  version: string
  instance: string
  /** Monotonic milliseconds. */
  startedAt: number
  source: SourceState
  keys: KeysReport
  hub: HubStats
  limits: Counts
  revocations: number
  disconnects: DisconnectsReport
  totals: Totals
  workers?: Report["workers"]
  tables: TrackedTable[]
  derived: DerivedReport[]
}

/** Makes the report. */
export function reportOf({
  problems,
  version,
  instance,
  startedAt,
  source,
  keys,
  hub,
  limits,
  revocations,
  disconnects,
  totals,
  workers,
  tables,
  derived,
}: Findings): Report {
  const { listener, feed, lagMs, bell, canary, unreadable } = source
  const secondsSince = (at: number) => Math.round((performance.now() - at) / 100) / 10
  return {
    status: problems.length === 0 ? "ok" : "degraded",
    problems,
    version,
    instance,
    at: new Date().toISOString(),
    uptime_seconds: Math.round(performance.now() - startedAt) / 1_000,
    listener: {
      state: listener.kind,
      since_seconds: secondsSince(listener.since),
      proven_seconds_ago: listener.kind === "up" ? secondsSince(listener.provenAt) : null,
      error: listener.kind === "down" ? (listener.error ?? null) : null,
    },
    feed: {
      state: feed.kind,
      since_seconds: secondsSince(feed.since),
      lag_seconds: Math.round(lagMs) / 1_000,
      cursor: feed.kind === "up" ? cursorText(feed.cursor) : null,
      proven_seconds_ago: canary.provenAt === null ? null : secondsSince(canary.provenAt),
      bell,
      unreadable,
      error: feed.kind === "down" ? (feed.error ?? null) : null,
    },
    keys,
    connections: {
      total: hub.connections,
      users: Object.keys(hub.users).length,
      by_user: hub.users,
      channels: Object.keys(hub.channels).length,
      by_channel: hub.channels,
      lanes: hub.lanes,
      replaying: hub.replaying,
    },
    limits_reached: limits,
    revocations,
    totals,
    disconnects,
    ...(workers === undefined ? {} : { workers }),
    tables,
    derived,
  }
}

const largest = (counts: Counts, top: number): Counts =>
  Object.fromEntries(
    Object.entries(counts)
      .sort(([, a], [, b]) => b - a)
      .slice(0, top),
  )

/** The report with only the users and channels that have the most connections, since thousands of them are much each second. */
export const shortened = ({ connections, ...rest }: Report, top: number): Report => ({
  ...rest,
  connections: {
    ...connections,
    by_user: largest(connections.by_user, top),
    by_channel: largest(connections.by_channel, top),
  },
})
