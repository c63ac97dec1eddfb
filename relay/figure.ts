/** A figure: one value of a derived message, on its channel. What it looks like on the wire, and who may see it. Pure. */

import { ALL } from "./change.ts"
import { type Subscription, splitChannel } from "./subscription.ts"
import { frameText } from "./wire.ts"

export interface Figure {
  readonly type: string
  readonly action: string | null
  readonly channel: string
  /** JSON text. */
  readonly data: string
  /** When it was computed, as RFC 3339. */
  readonly at: string
}

/** The figures of one derived message; those that it had before and has no more are withdrawn. */
export interface FigureSet {
  /** The derived message's type and channel. */
  readonly name: string
  readonly figures: readonly Figure[]
}

/** As one frame. */
export function figureFrame({ type, action, channel, data, at }: Figure): Buffer {
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
export function seesFigure(
  { type, channel }: Pick<Figure, "type" | "channel">,
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
