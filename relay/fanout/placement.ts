/** Placement: the names under which a lane is found, so that a change costs only the lanes that it may concern. Pure. */

import { ALL, type Image, type Meta } from "../change/change.ts"
import { isRestricted } from "../change/column-mask.ts"
import { valueIn } from "../change/row-values.ts"
import { NULL } from "../change/scalar.ts"
import { fewestValues } from "../protocol/filter.ts"
import type { Subscription } from "./visibility.ts"

/** Names of which a row must have at least one to be seen. */
export interface Place {
  readonly names: ReadonlySet<string>
  /** The column whose value gives a row its name; undefined: the names are channels. */
  readonly column: string | undefined
}

/**
 * Where to look for a subscription. Its channels, each right, and each condition that lists a column's values would do.
 * The one with the fewest names is taken, and preferably none that every row has.
 */
export function placeOf({ channels, rights, filter }: Subscription): Place {
  const scope = (prefix: string, ids: ReadonlySet<string> | null) =>
    ids === null ? null : new Set([...ids].map((id) => `${prefix}:${id}`))
  const places: Place[] = []
  for (const names of [
    rights.channels,
    scope("committee", rights.committees),
    scope("election", rights.elections),
  ])
    if (names !== null) places.push({ names, column: undefined })
  const listed = filter && fewestValues(filter)
  if (listed !== undefined) {
    const { column, identities } = listed
    places.push({ names: new Set([...identities].map((identity) => valueName(column, identity))), column })
  }
  return places.reduce<Place>(
    (best, place) =>
      best.names.has(ALL) || (place.names.size < best.names.size && !place.names.has(ALL)) ? place : best,
    { names: channels, column: undefined },
  )
}

/** The names that a row has by its value in a column. For subscriptions that are not shown the value it is null. */
export function namesByValue(meta: Meta, { row }: Image, column: string): string[] {
  const name = valueName(column, valueIn(row, column).identity)
  return isRestricted(meta, column) ? [name, valueName(column, NULL.identity)] : [name]
}

/** No channel has such a name. */
const valueName = (column: string, identity: string): string => `${column} = ${identity}`
