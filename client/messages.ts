/** What the relay says, as types. A test holds them against the relay's own schemas. */

export interface Tx {
  id: string
  /** The last change of its transaction that this client receives. */
  last: boolean
}

type Values = Record<string, unknown>

interface About {
  type: string
  id: string
  at: string
  table: string
  tx: Tx
}

/** A change that has all that its action has. */
interface Whole extends About {
  oversize?: undefined
}

interface RowChange extends Whole {
  key: Values
  data: Values
  channels: string[]
}

/** A row that is too large to be sent: it has to be loaded. */
interface OversizeChange extends About {
  action: "create" | "update" | "delete"
  key: Values
  data: null
  oversize: true
  previous_key?: Values | undefined
  channels: string[]
}

/** A committed change of a tracked table. */
export type ChangeMessage =
  | (RowChange & { action: "create" })
  | (RowChange & {
      action: "update"
      changed: string[]
      before: Values
      previous_key?: Values | undefined
    })
  | (RowChange & { action: "delete" })
  | OversizeChange
  | (Whole & { action: "leave"; key: Values })
  | (Whole & { action: "truncate"; channels: string[]; partition?: string | undefined })
  | (Whole & {
      action: "bulk_load"
      channels: string[]
      operation?: string | undefined
      rows?: number | undefined
      partition?: string | undefined
    })

/** A message of the application, from relay.broadcast or relay.send_to_user. */
export interface ApplicationMessage {
  type: "message"
  id: string
  at: string
  channel: string
  payload: unknown
  tx: Tx
}

/** What a function of the application has computed: the latest value, in no transaction. */
export interface DerivedMessage {
  type: string
  action?: string | undefined
  channel: string
  at: string
  data: unknown
}

/** Why what lies between a client's cursor and now cannot be sent. */
export type Reason = "no_cursor" | "malformed" | "lineage" | "too_old" | "ahead"

interface Recovery {
  cursor: string
  recovered: boolean
  replayed: number | null
  reason: Reason | null
}

interface Answer {
  /** As the request named itself. */
  request?: string | number | undefined
}

/** The relay's own messages. */
export type ServerMessage =
  | (Recovery & {
      type: "connection_success"
      user: string
      connection: string
      channels: string[]
      heartbeat_seconds: number
      expires_in: number
    })
  | (Recovery & Answer & { type: "subscribed"; channels: string[] })
  | (Answer & { type: "unsubscribed"; channels: string[]; cursor: string })
  | (Answer & { type: "authenticated"; user: string; channels: string[]; expires_in: number })
  | { type: "checkpoint"; cursor: string; replayed?: number | undefined }
  | { type: "ping" }
  | (Answer & { type: "pong"; at: string })
  | (Answer & {
      type: "error"
      code:
        | "bad_message"
        | "unknown_type"
        | "not_authenticated"
        | "not_started"
        | "forbidden_channel"
        | "not_subscribed"
        | "other_user"
        | "too_many_filters"
        | "busy"
      message: string
    })
