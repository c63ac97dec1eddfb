/** The filter: what holds on the connection, and what is asked for instead. */

import type { ChangeMessage } from "./messages.ts"
import { createWaiting } from "./waiting.ts"

type Scalar = string | number | boolean

/** What must hold for a column. Numbers of more than 15 digits are named as strings. */
export interface Tests {
  eq?: Scalar | null
  neq?: Scalar | null
  in?: readonly Scalar[]
  lt?: string | number
  lte?: string | number
  gt?: string | number
  gte?: string | number
}

/** What is to be told, of all that the channels and the token allow. Left out or null: all of it. */
export interface FilterFields {
  /** What must hold for a row, by column; a value alone stands for `eq`. */
  where?: { readonly [column: string]: Scalar | null | Tests } | null | undefined
  types?: readonly string[] | null | undefined
  actions?: readonly ChangeMessage["action"][] | null | undefined
}

export interface Filter {
  /** States it in the URL of a connection. */
  state(url: URL): void
  /** Resolves when it holds. */
  amend(fields: FilterFields): Promise<void>
  /** Asks for what was not asked for yet. */
  settle(ask: (fields: FilterFields) => number): void
  granted(request: unknown): void
  refused(request: unknown, error: Error): void
  /** There is no connection. */
  lost(): void
  end(error: Error): void
}

/** As the relay does it. */
const amended = (
  before: FilterFields,
  { where = before.where, types = before.types, actions = before.actions }: FilterFields,
): FilterFields => ({ where, types, actions })

export function createFilter(start: FilterFields): Filter {
  let holds = amended({}, start)
  const amendments = createWaiting<FilterFields>()

  return {
    state(url) {
      const { where, types, actions } = holds
      if (where) url.searchParams.set("where", JSON.stringify(where))
      if (types) url.searchParams.set("types", types.join(","))
      if (actions) url.searchParams.set("actions", actions.join(","))
    },
    amend: amendments.add,
    settle(ask) {
      for (const amendment of amendments.all()) amendment.request ??= ask(amendment.asked)
    },
    granted(request) {
      for (const { asked, resolve } of amendments.part((amendment) => amendment.request === request)) {
        holds = amended(holds, asked)
        resolve()
      }
    },
    refused(request, error) {
      for (const { reject } of amendments.part((amendment) => amendment.request === request)) reject(error)
    },
    lost: amendments.lost,
    end: amendments.end,
  }
}
