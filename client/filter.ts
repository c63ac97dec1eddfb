/** The filter: the one in force, and the requests to change it. */

import type { ChangeMessage } from "./messages.ts"
import { createPendingRequests } from "./pending.ts"

type Scalar = string | number | boolean

/** What must hold for a column. Write numbers of more than 15 digits as strings. */
export interface Tests {
  eq?: Scalar | null
  neq?: Scalar | null
  in?: readonly Scalar[]
  lt?: string | number
  lte?: string | number
  gt?: string | number
  gte?: string | number
}

/** What the feed receives, of all that its channels and token allow. Left out or null: all of it. */
export interface FilterFields {
  /** What must hold for a row, by column. A bare value means `eq`. */
  where?: { readonly [column: string]: Scalar | null | Tests } | null | undefined
  types?: readonly string[] | null | undefined
  actions?: readonly ChangeMessage["action"][] | null | undefined
}

export interface Filter {
  /** Adds it to the URL of a connection. */
  addTo(url: URL): void
  /** Resolves when it is in force. */
  amend(fields: FilterFields): Promise<void>
  /** Sends the requests that were not sent yet. @param send returns the request's number. */
  reconcile(send: (fields: FilterFields) => number): void
  granted(request: unknown): void
  refused(request: unknown, error: Error): void
  /** There is no connection. */
  disconnected(): void
  close(error: Error): void
}

/** As the relay does it. */
const amended = (
  before: FilterFields,
  { where = before.where, types = before.types, actions = before.actions }: FilterFields,
): FilterFields => ({ where, types, actions })

export function createFilter(start: FilterFields): Filter {
  let current = amended({}, start)
  const pending = createPendingRequests<FilterFields>()

  return {
    addTo(url) {
      const { where, types, actions } = current
      if (where) url.searchParams.set("where", JSON.stringify(where))
      if (types) url.searchParams.set("types", types.join(","))
      if (actions) url.searchParams.set("actions", actions.join(","))
    },
    amend: pending.add,
    reconcile(send) {
      for (const request of pending.all()) request.id ??= send(request.wanted)
    },
    granted(id) {
      for (const { wanted, resolve } of pending.remove((request) => request.id === id)) {
        current = amended(current, wanted)
        resolve()
      }
    },
    refused(id, error) {
      for (const { reject } of pending.remove((request) => request.id === id)) reject(error)
    },
    disconnected: pending.disconnected,
    close: pending.close,
  }
}
