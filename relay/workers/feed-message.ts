/** What the primary sends its workers: the feed, and the state of its source. */

import { z } from "zod"
import { type Cursor, cursorText, parseCursor } from "../change/cursor.ts"
import { Revocation } from "../change/revocation.ts"
import { BellReport } from "../feed/bell.ts"
import { CanaryState } from "../feed/canary.ts"
import type { SourceState } from "../feed/source.ts"
import { UnreadableReport } from "../feed/unreadable.ts"
import { StandingProblem } from "../lib/standing.ts"

const CursorText = z.string().transform((text, context): Cursor => {
  const cursor = parseCursor(text)
  if (cursor !== undefined) return cursor
  context.addIssue("not a cursor")
  return z.NEVER
})

const Down = z.object({
  kind: z.literal("down"),
  since: z.number(),
  attempts: z.number(),
  error: z
    .string()
    .nullable()
    .transform((error) => error ?? undefined),
})

export const FeedMessage = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("adopt"), lineage: z.string(), lineages: z.array(z.string()) }),
  z.object({ kind: z.literal("position"), cursor: CursorText, revocations: Revocation.array() }),
  z.object({
    kind: z.literal("part"),
    /** Rows of the log, each a LogRow. */
    rows: z.array(z.unknown()),
    revocations: Revocation.array(),
    cursor: CursorText,
    first: z.boolean(),
    final: z.boolean(),
  }),
  z.object({ kind: z.literal("lost") }),
  z.object({ kind: z.literal("reset") }),
  z.object({
    kind: z.literal("derived"),
    set: z.object({
      name: z.string(),
      values: z.array(
        z.object({
          type: z.string(),
          action: z.string().nullable(),
          channel: z.string(),
          data: z.string(),
          at: z.string(),
        }),
      ),
    }),
  }),
  /** Times are in milliseconds since the machine started. */
  z.object({
    kind: z.literal("status"),
    at: z.number(),
    listener: z.discriminatedUnion("kind", [
      Down,
      z.object({ kind: z.literal("up"), since: z.number(), provenAt: z.number() }),
    ]),
    feed: z.discriminatedUnion("kind", [
      Down,
      z.object({ kind: z.literal("up"), since: z.number(), cursor: CursorText }),
    ]),
    lagMs: z.number(),
    bell: BellReport,
    canary: CanaryState,
    unreadable: UnreadableReport,
    upkeep: StandingProblem.array(),
  }),
  z.object({ kind: z.literal("stop") }),
])
export type FeedMessage = z.infer<typeof FeedMessage>
/** The same as JSON. */
export type FeedMessageText = z.input<typeof FeedMessage>
export type SourceStatus = Extract<FeedMessage, { kind: "status" }>

/** performance.now() counts from the start of the process, this from that of the machine, for all processes alike. */
const machineTime = (at: number): number => at + machineOffset()
const machineOffset = (): number => Number(process.hrtime.bigint()) / 1e6 - performance.now()

/** The source's state as a message. */
export function statusOf({
  listener,
  feed,
  canary,
  lagMs,
  bell,
  unreadable,
  upkeep,
}: SourceState): FeedMessageText {
  return {
    kind: "status",
    at: machineTime(performance.now()),
    listener:
      listener.kind === "up"
        ? { kind: "up", since: machineTime(listener.since), provenAt: machineTime(listener.provenAt) }
        : { ...listener, since: machineTime(listener.since), error: listener.error ?? null },
    feed:
      feed.kind === "up"
        ? { kind: "up", since: machineTime(feed.since), cursor: cursorText(feed.cursor) }
        : { ...feed, since: machineTime(feed.since), error: feed.error ?? null },
    lagMs,
    bell,
    canary: shifted(canary, machineOffset()),
    unreadable,
    upkeep: [...upkeep],
  }
}

/** By another clock, which is that much ahead. */
function shifted({ provenAt, waitingSince, failingSince, error }: CanaryState, ms: number): CanaryState {
  const shift = (at: number | null) => (at === null ? null : at + ms)
  return {
    provenAt: shift(provenAt),
    waitingSince: shift(waitingSince),
    failingSince: shift(failingSince),
    error,
  }
}

/** The state that a message carries, by the clock of this process. */
export function stateOf({ at, listener, feed, canary, lagMs, ...rest }: SourceStatus): SourceState {
  const offset = machineOffset()
  return {
    listener:
      listener.kind === "up"
        ? { kind: "up", since: listener.since - offset, provenAt: listener.provenAt - offset }
        : { ...listener, since: listener.since - offset },
    feed: { ...feed, since: feed.since - offset },
    lagMs: lagMs + performance.now() + offset - at,
    canary: shifted(canary, -offset),
    bell: rest.bell,
    unreadable: rest.unreadable,
    upkeep: rest.upkeep,
  }
}
