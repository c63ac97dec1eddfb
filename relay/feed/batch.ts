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
  /** Whether there is anybody to send a change to. If not, the feed need not hurry. */
  hasClients(): boolean
  /** The next part. The feed reads on when it resolves. */
  deliver(part: BatchPart): Promise<void>
  /** What a derived message has now. */
  showDerived(set: DerivedValues): void
  /** The log is of this lineage, and cursors of these hold. Called each time the feed has connected. */
  adopt(lineage: string, lineages: ReadonlySet<string>): void
  /** The session is lost: a batch in progress ends here, and its changes come again in the next. */
  lost(): void
  /** The feed starts at this position, where these revocations are in force. */
  begin(cursor: Cursor, revocations: readonly Revocation[]): void
  /** Whatever was promised before does not hold; there is no position until `begin`. */
  reset(): void
}
