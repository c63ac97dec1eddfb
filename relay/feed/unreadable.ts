/** Rows of the log that could not be read, as one relay has met them. */

import { z } from "zod"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import type { UnreadableRow } from "./entries.ts"

export const UnreadableReport = z.object({
  /** How many since the start. */
  rows: z.number(),
  /** The seq of the last one. */
  last_seq: z.string().nullable(),
})
export type UnreadableReport = z.infer<typeof UnreadableReport>

export interface Unreadable {
  /** Notes some that were passed over. One that comes again, in another read, counts once. */
  note(rows: readonly UnreadableRow[]): void
  report(): UnreadableReport
}

/** How many are remembered, to know them again. */
const KEPT = 10_000
/** How many a log line names. */
const NAMED = 20

export function createUnreadable({ log, metrics }: { log: Log; metrics: Metrics }): Unreadable {
  const seen = new Set<string>()
  let count = 0
  let last: string | null = null

  function isNew({ seq }: UnreadableRow): boolean {
    if (seq === null) return true
    if (seen.has(seq)) return false
    if (seen.size >= KEPT) seen.delete(seen.values().next().value ?? "")
    seen.add(seq)
    return true
  }

  return {
    note(rows) {
      const found = rows.filter(isNew)
      if (found.length === 0) return
      count += found.length
      last = found.at(-1)?.seq ?? last
      for (const { fault } of found) metrics.unreadable.inc({ fault })
      const named = found.slice(0, NAMED).map(({ seq, table, fault }) => ({ seq, table, fault }))
      log.error(
        { event: "rows_unreadable", count: found.length, rows: named },
        "rows of the log cannot be read: they are passed over, and their tables are to be loaded again",
      )
    },
    report: () => ({ rows: count, last_seq: last }),
  }
}
