/** The filter: the one in force, and the requests to change it. */

import { FeedError } from "./error.ts"
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

export interface FilterRequest {
  /** The whole filter in force, for a connection whose URL did not say it; or a change that the caller wants. */
  whole: boolean
  fields: FilterFields
}

export interface Filter {
  /** The filter as parameters of a URL; undefined if none can say it. */
  forUrl(): Record<string, string | undefined> | undefined
  /** What is left of it with which no request can be too long. */
  types(): FilterFields["types"]
  /** The relay accepted a connection. @param inUrl whether its URL said the filter. */
  connected(inUrl: boolean): void
  /** Resolves when it is in force. Rejects at once what could not be stated again after a lost connection. */
  amend(fields: FilterFields): Promise<void>
  /** What to ask the relay for next. @param pending also what the caller has changed. */
  next(pending: boolean): FilterRequest | undefined
  granted(request: FilterRequest): void
  refused(request: FilterRequest, error: Error): void
  /** The relay refused the filter in force: what the caller asks for from now on replaces it at once. */
  doubt(): void
  /** The filter in force, as text. */
  text(): string
  close(error: Error): void
}

/** In UTF-8. A frame may have 16 KiB, with what is around the filter. */
const MOST_BYTES = 15_000

/** As the relay does it. */
const amended = (
  before: FilterFields,
  { where = before.where, types = before.types, actions = before.actions }: FilterFields,
): FilterFields => ({ where, types, actions })

/** @returns a copy, which the caller cannot change any more. @throws if it cannot be sent. */
function checked(fields: FilterFields): FilterFields {
  const text = JSON.stringify(fields)
  if (encodeURIComponent(text).replace(/%../g, "x").length > MOST_BYTES)
    throw new FeedError(
      "relay",
      `the filter is too long: it may have ${MOST_BYTES} bytes as JSON. Shorten its lists`,
    )
  return JSON.parse(text)
}

const listed = (list: readonly string[] | null | undefined): string | undefined | false =>
  list ? list.length > 0 && !list.join("").includes(",") && list.join(",") : undefined

/** @throws FeedError if no frame can say it. */
export function createFilter({ where, types, actions }: FilterFields): Filter {
  let current = checked({ where, types, actions })
  /** Whether the connection has it. */
  let stated = true
  let doubtful = false
  const pending = createPendingRequests<FilterFields>()

  return {
    forUrl() {
      const [types, actions] = [listed(current.types), listed(current.actions)]
      if (types === false || actions === false) return undefined
      return { where: current.where ? JSON.stringify(current.where) : undefined, types, actions }
    },
    types: () => current.types ?? null,
    connected(inUrl) {
      stated = inUrl || !Object.values(current).some((field) => field)
    },
    async amend(fields) {
      const { where, types, actions } = fields
      const wanted = checked({ where, types, actions })
      // All of it has to go into one frame, after the connection was lost.
      const whole = checked(
        pending.all().reduce((before, { wanted }) => amended(before, wanted), amended(current, wanted)),
      )
      if (doubtful) current = whole
      return pending.add(wanted)
    },
    next(withPending) {
      if (!stated)
        return { whole: true, fields: amended({ where: null, types: null, actions: null }, current) }
      const [first] = withPending ? pending.all() : []
      return first && { whole: false, fields: first.wanted }
    },
    granted({ whole, fields }) {
      stated = true
      doubtful = false
      if (whole) return
      current = amended(current, fields)
      for (const { resolve } of pending.remove(({ wanted }) => wanted === fields)) resolve()
    },
    refused({ fields }, error) {
      for (const { reject } of pending.remove(({ wanted }) => wanted === fields)) reject(error)
    },
    doubt() {
      doubtful = true
    },
    text: () => JSON.stringify(current),
    close: pending.close,
  }
}
