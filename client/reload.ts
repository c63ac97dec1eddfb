/** Which changes cannot be applied to what the caller has: its state has to be loaded. Pure. */

import type { ApplicationMessage, ChangeMessage } from "./messages.ts"

/**
 * `bulk_load`: rows were written that are not sent one by one. `truncate`: a partition was emptied, and nobody says which
 * rows lay in it. `oversize`: a row is too large to be sent. `regained`: a channel that the token did not allow for a
 * while is back. `unreachable`: there is no connection yet, and nothing to show.
 */
export type ReloadReason = "bulk_load" | "truncate" | "oversize" | "regained" | "unreachable"

/** @returns undefined if the change can be applied. */
export function reloadReason(change: ChangeMessage | ApplicationMessage): ReloadReason | undefined {
  if (!("action" in change)) return undefined
  if (change.action === "bulk_load") return "bulk_load"
  if (change.action === "truncate") return change.partition === undefined ? undefined : "truncate"
  return change.oversize && change.action !== "delete" ? "oversize" : undefined
}
