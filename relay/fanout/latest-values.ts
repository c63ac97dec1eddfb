/** The latest derived values: only the last of each, so that a slow client is never owed one that has been overtaken. */

import { splitChannel } from "../access/rights.ts"
import { ALL } from "../change/change.ts"
import type { DerivedValue } from "../derived/value.ts"
import { frameText } from "../protocol/frame.ts"
import type { Subscription } from "./visibility.ts"

interface Standing {
  readonly version: number
  readonly frame: Buffer
}

/** Those that a lane sees. */
export class LatestValues {
  readonly #standing = new Map<string, Standing>()
  #newest = 0

  /** A connection that has this version has all of them. 0: there are none. */
  get newest(): number {
    return this.#newest
  }

  /** @param version higher than all before, in any lane. */
  put(name: string, version: number, frame: Buffer): void {
    // The order of the map is that of the versions.
    this.#standing.delete(name)
    this.#standing.set(name, { version, frame })
    this.#newest = version
  }

  delete(name: string): void {
    this.#standing.delete(name)
  }

  /** Those that are newer, in order. */
  *since(version: number): Generator<Standing> {
    for (const standing of this.#standing.values()) if (standing.version > version) yield standing
  }
}

/** As one frame. */
export function valueFrame({ type, action, channel, data, at }: DerivedValue): Buffer {
  const head = JSON.stringify({ type, ...(action === null ? {} : { action }), channel, at })
  return frameText(`${head.slice(0, -1)},"data":${data}}`)
}

/** Values of an election or a committee are also sent to those who follow everything. */
const PART_OF_ALL = ["election", "committee"]

/**
 * Whether a subscription sees a value: by its channel, and if the token allows everything that the value sums up. A value
 * on `election:<id>` or `dashboard:<id>` is about that election alone, one on `committee:<id>` about that committee.
 * Of a filter only the types count: the rest is about rows.
 */
export function seesValue(
  { type, channel }: Pick<DerivedValue, "type" | "channel">,
  { channels, rights, filter }: Subscription,
): boolean {
  const [prefix, id] = splitChannel(channel)
  const lies = id !== "" && PART_OF_ALL.includes(prefix) ? [channel, ALL] : [channel]
  const within = (ids: ReadonlySet<string> | null, ...prefixes: string[]) =>
    ids === null || (prefixes.includes(prefix) && ids.has(id))
  return (
    lies.some((name) => channels.has(name)) &&
    (rights.channels === null || lies.some((name) => rights.channels?.has(name))) &&
    within(rights.committees, "committee") &&
    within(rights.elections, "election", "dashboard") &&
    (filter === undefined || filter.types === null || filter.types.has(type))
  )
}
