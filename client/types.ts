/** Events with the types of the caller's rows. */

import type { FeedError } from "./error.ts"
import type { ApplicationMessage, ChangeMessage, DerivedMessage, Reason } from "./messages.ts"
import type { ReloadReason } from "./reload.ts"
import type { State } from "./state.ts"

type Row = Record<string, unknown>

/** The rows by change type, such as `{ voting_update: Vote }`. */
export type Rows = { [type: string]: object }
/** Any type of change, with untyped rows. */
export type AnyRows = {
  guarantee_update: Row
  attendance_update: Row
  voting_update: Row
  [type: string]: Row
}

type Typed<Change, Type, Data> = Change extends unknown
  ? Omit<Change, "type" | "data" | "before"> & { type: Type } & (Change extends { data: object }
        ? { data: Data }
        : Change extends { data: null }
          ? { data: null }
          : unknown) &
      (Change extends { before: unknown } ? { before: Partial<Data> } : unknown)
  : never

type RowOf<R, Type extends keyof R> = R[Type] extends object ? R[Type] : never

/** A change of one type. Its `action` decides which fields it has. */
export type Change<Type extends string = string, Data extends object = Row> = Typed<ChangeMessage, Type, Data>

/** Every change. */
export type ChangeOf<R> = { [Type in keyof R & string]: Change<Type, RowOf<R, Type>> }[keyof R & string]

/** The events of every feed. */
export interface FeedEvents<R> {
  /** Every change, of whatever type. */
  change: ChangeOf<R>
  /** From relay.broadcast or relay.send_to_user. */
  message: ApplicationMessage
  /** A value that the relay computes, such as `dashboard_update`. Only the latest one counts. */
  derived: DerivedMessage
  state: State
  /** The caller's state may be wrong: changes are missing, or one came that cannot be applied. */
  resync: { reason: Reason | ReloadReason }
  /** The channels that are wanted and cannot be had with this token have changed. They are asked for with the next. */
  channels: { denied: string[] }
  error: FeedError
}

export type EventName<R> = keyof FeedEvents<R> | (keyof R & string)
export type EventOf<R, Name> = Name extends keyof FeedEvents<R>
  ? FeedEvents<R>[Name]
  : Name extends keyof R & string
    ? Change<Name, RowOf<R, Name>>
    : never
