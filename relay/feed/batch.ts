/** Batches: what the feed delivers, and to whom. */

import type { Change } from "../change/change.ts"
import type { Cursor } from "../change/cursor.ts"
import type { Revocation } from "../change/revocation.ts"
import type { DerivedValues } from "../derived/value.ts"

/** A part of a batch. A batch is what became visible between two snapshots, so a transaction lies whole in one. */
export interface BatchPart {
  readonly changes: readonly Change[]
  /** In force from here on. */
  readonly revocations: readonly Revocation[]
  /** The position after the whole batch. */
  readonly cursor: Cursor
  readonly first: boolean
  readonly final: boolean
}

export interface FeedConsumer {
  /** Whether there is anybody to whom a change could go. Otherwise the feed need not hurry. */
  hasClients(): boolean
  /** The next part. The feed reads on when it resolves. */
  deliver(part: BatchPart): Promise<void>
  /** What a derived message has now. */
  show(set: DerivedValues): void
  /** The log is of this lineage; of which the cursors hold. Told each time the feed has connected. */
  meet(lineage: string, lineages: ReadonlySet<string>): void
  /** The session is lost: a batch in progress ends here, and its changes come again. */
  lost(): void
  /** The feed starts at this position, where these revocations are in force. */
  begin(cursor: Cursor, revocations: readonly Revocation[]): void
  /** Whatever was promised before does not hold; there is no position until `begin`. */
  reset(): void
}
