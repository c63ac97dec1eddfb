/** How old changes are when connections are handed them. */

import type { Change } from "../change/change.ts"

/**
 * The ages of the transactions among changes, in seconds: the time since the last row of each was written, by PostgreSQL's
 * clock and this machine's. The row precedes the commit, so that a transaction that committed late counts as old.
 * @param now milliseconds since 1970.
 */
export function agesOf(changes: readonly Change[], now: number): number[] {
  const written = new Map<string, string>()
  for (const { xid, at } of changes) written.set(xid, at)
  return [...written.values()].map((at) => Math.max(0, now - timeOf(at)) / 1_000)
}

/** PostgreSQL's `2026-11-03 20:15:00.25+00`, in milliseconds since 1970. */
const timeOf = (at: string): number => Date.parse(at.replace(" ", "T").replace(/\+00$/, "Z"))
