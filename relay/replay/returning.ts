/** A returning client: what it brings, and what it is told. */

import type { Cursor } from "../change/cursor.ts"
import type { Connection } from "../fanout/connection.ts"
import type { Subscription } from "../fanout/visibility.ts"
import type { Recovery } from "../protocol/server-message.ts"

/** The answer to a client that joins: the cursor from which on it misses nothing, and whether that is its own. */
export type Joined = { cursor: string } & Recovery

export interface Returning {
  readonly connection: Connection
  readonly channels: ReadonlySet<string>
  /** The cursor that it brings. */
  readonly since: Cursor
  /** Called once, before the first change and in the same turn. */
  answer(joined: Joined): void
}

/** What it sees of these channels. */
export function subscriptionOf(
  { identity, filter }: Connection,
  channels: ReadonlySet<string>,
): Subscription {
  if (identity === undefined) throw new Error("only an authenticated client can return")
  return { channels, rights: identity.rights, filter }
}
