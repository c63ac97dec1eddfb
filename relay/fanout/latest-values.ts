/** The latest figures: of each the last value only, so that whoever is slow is never owed what has been overtaken. */

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

  /** Whoever has seen this version has seen all. 0: there is none. */
  get newest(): number {
    return this.#newest
  }

  /** @param version of all that were ever put anywhere, the highest. */
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

/** Figures of an election or a committee are told to those who follow everything, too. */
const PART_OF_ALL = ["election", "committee"]

/**
 * Whether a subscription sees a figure: by its channel, and if the token allows all that the figure sums up. What is
 * on `election:<id>` and `dashboard:<id>` is about that election alone, what is on `committee:<id>` about that committee.
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
