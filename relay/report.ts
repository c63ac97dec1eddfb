/** The report: what operations may know, as JSON. Pure but for the clock. */

import { z } from "zod"
import { BellReport } from "./bell.ts"
import { TrackedTable } from "./changelog.ts"
import { cursorText } from "./cursor.ts"
import { DerivedReport } from "./derived.ts"
import { EndingsReport } from "./endings.ts"
import { KeysReport } from "./keys.ts"
import type { SourceState } from "./source.ts"
import { Counts, HubStats } from "./stats.ts"
import { Totals } from "./totals.ts"

export const Report = z.object({
  status: z.enum(["ok", "degraded"]),
  /** What is wrong, in words. */
  problems: z.array(z.string()),
  version: z.string(),
  /** Another with each start: where it differs, totals began anew, or another relay has answered. */
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
    /** When a row of the relay's own came back from the log; null if it writes none. */
    proven_seconds_ago: z.number().nullable(),
    bell: BellReport,
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
  endings: EndingsReport,
  /** Where several processes share the port: each by its process id. */
  workers: z.array(z.object({ pid: z.number(), connections: z.number() })).optional(),
  tables: z.array(TrackedTable),
  derived: z.array(DerivedReport),
})
export type Report = z.infer<typeof Report>

/** A proof or a read that is older makes the relay not ready. Milliseconds. */
const STALE_MS = 20_000
const LAG_BOUND_MS = 5_000

/** What keeps changes from arriving, in words; nothing if the relay is ready. */
export function problemsOf({ listener, feed, lagMs, canary }: SourceState): string[] {
  const found: string[] = []
  if (listener.kind === "down") found.push(`not listening: ${listener.error ?? "connecting"}`)
  else if (performance.now() - listener.provenAt > STALE_MS)
    found.push("the listener's last proof is too old")
  if (feed.kind === "down") found.push(`the changelog cannot be read: ${feed.error ?? "connecting"}`)
  else if (lagMs > LAG_BOUND_MS) found.push(`the feed is ${Math.round(lagMs / 1_000)} s behind`)
  else if (canary.waitingSince !== null && performance.now() - canary.waitingSince > LAG_BOUND_MS)
    found.push("the log does not show what the relay itself has written to it")
  return found
}

/** Nobody can come in without a key, and the relay is not ready; keys that cannot be fetched anew are no more than a problem. */
export const keyProblems = ({ known, error }: KeysReport): string[] =>
  known === 0
    ? [`there are no keys for tokens: ${error ?? "not fetched yet"}`]
    : error === null
      ? []
      : [`the keys for tokens cannot be fetched anew: ${error}`]

/** Changes arrive all the same, if there are any. */
export const canaryProblems = ({ canary }: SourceState): string[] =>
  canary.error === null ? [] : [`the relay cannot write to the log: ${canary.error}`]

/** Numbers that stand still harm nothing else, and so they make the relay no less ready. */
export const derivedProblems = (derived: readonly DerivedReport[]): string[] =>
  derived.flatMap(({ type, channel, error }) =>
    error === null ? [] : [`${type} of ${channel} cannot be computed: ${error}`],
  )

/** Everything that a report is made of. */
export interface Findings {
  problems: string[]
  version: string
  instance: string
  /** By the clock that is never set, in milliseconds. */
  startedAt: number
  source: SourceState
  keys: KeysReport
  hub: HubStats
  limits: Counts
  revocations: number
  endings: EndingsReport
  totals: Totals
  workers?: Report["workers"]
  tables: TrackedTable[]
  derived: DerivedReport[]
}

/** The report. */
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
  endings,
  totals,
  workers,
  tables,
  derived,
}: Findings): Report {
  const { listener, feed, lagMs, bell, canary } = source
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
    endings,
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

/** The same with no more than so many users and channels, those with the most connections: thousands are much each second. */
export const shortened = ({ connections, ...rest }: Report, top: number): Report => ({
  ...rest,
  connections: {
    ...connections,
    by_user: largest(connections.by_user, top),
    by_channel: largest(connections.by_channel, top),
  },
})
