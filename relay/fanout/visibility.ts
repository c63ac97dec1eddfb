/** Visibility: what a subscription sees of a change. Pure. */

import { type Rights, splitChannel } from "../access/rights.ts"
import {
  ALL,
  type Change,
  changedColumns,
  type Image,
  type Meta,
  type RowChange,
  type TableChange,
} from "../change/change.ts"
import { type Mask, maskOf, NO_MASK, shown } from "../change/column-mask.ts"
import { actionOf, type View } from "../protocol/encode.ts"
import { type Filter, rowPasses, UNKNOWN } from "../protocol/filter.ts"

export interface Subscription {
  readonly channels: ReadonlySet<string>
  readonly rights: Rights
  /** Undefined: no filter. */
  readonly filter?: Filter | undefined
}

/** Connections with the same key see the same, so they share a lane. */
export function subscriptionKey({ channels, rights, filter }: Subscription): string {
  const set = (values: ReadonlySet<string> | null) => (values === null ? null : [...values].sort())
  const { committees, elections, roles } = rights
  const claims = [set(committees), set(elections), set(rights.channels), set(roles)]
  return JSON.stringify([set(channels), ...claims, filter?.key])
}

/** What the subscription sees of a change. `own` adds the user's own channel. */
export function view(change: Change, subscription: Subscription, own?: string): View {
  const { types, actions } = subscription.filter ?? UNFILTERED
  if (types !== null && !types.has(change.kind === "message" ? "message" : change.type)) return "none"
  const as = viewOfAny(change, subscription, own)
  if (as === "none" || actions === null || change.kind === "message") return as
  return actions.has(actionOf(change, as)) ? as : "none"
}

const UNFILTERED = { types: null, actions: null }

function viewOfAny(change: Change, subscription: Subscription, own: string | undefined): View {
  switch (change.kind) {
    case "row": {
      const mask = maskOf(change.meta, subscription.rights.roles)
      const seen = (image: Image | undefined) =>
        image !== undefined && sees(image, change.oversize, mask, subscription, own)
      const before = seen(change.before)
      const after = seen(change.after)
      if (change.op !== "update") return before || after ? "whole" : "none"
      if (!before) return after ? "enter" : "none"
      if (!after) return "leave"
      return differs(change, mask) ? "whole" : "none"
    }
    case "table":
      return couldSee(change.meta, subscription, own) ? "whole" : "none"
    case "message": {
      const { channels, rights } = subscription
      const joined = channels.has(change.channel) || change.channel === own
      return joined && (rights.channels === null || rights.channels.has(change.channel)) ? "whole" : "none"
    }
  }
}

/**
 * Whether a visible column has changed: that a hidden value changed, and when, must not show. Of a row that is oversize
 * nobody knows, and a client that is told nothing would keep what is no more.
 */
function differs({ before, after, oversize }: RowChange, { columns }: Mask): boolean {
  if (columns.size === 0 || oversize || before === undefined || after === undefined) return true
  return changedColumns(before.row, after.row).some((name) => !columns.has(name))
}

/** A change as a subscription sees it. */
export interface VisibleChange {
  readonly change: Change
  readonly as: Exclude<View, "none">
  readonly mask: Mask
}

/** A change as the subscription sees it; undefined: not at all. `own` as for `view`. */
export function visibleChangeOf(
  change: Change,
  subscription: Subscription,
  own?: string,
): VisibleChange | undefined {
  const as = view(change, subscription, own)
  if (as === "none") return undefined
  return {
    change,
    as,
    mask: change.kind === "row" ? maskOf(change.meta, subscription.rights.roles) : NO_MASK,
  }
}

/** The changes that the subscription sees, in order. */
export function visibleChangesOf(
  changes: readonly Change[],
  subscription: Subscription,
  own?: string,
): VisibleChange[] {
  const visibleChanges: VisibleChange[] = []
  for (const change of changes) {
    const visibleChange = visibleChangeOf(change, subscription, own)
    if (visibleChange !== undefined) visibleChanges.push(visibleChange)
  }
  return visibleChanges
}

/** The users whose own channel a change is on. */
export function usersOf(change: Change): string[] {
  const users: string[] = []
  const collect = (channel: string) => {
    if (channel.startsWith("user:")) users.push(channel.slice(5))
  }
  if (change.kind === "message") collect(change.channel)
  if (change.kind === "row") {
    change.before?.channels.forEach(collect)
    change.after?.channels.forEach(collect)
  }
  return users
}

/** TRUNCATE and bulk loads name no rows: they concern every user if rows have users. */
export const concernsEveryUser = ({ meta }: TableChange): boolean => Object.hasOwn(meta.scope, "user")

function sees(
  image: Image,
  oversize: boolean,
  mask: Mask,
  { channels, rights, filter }: Subscription,
  own: string | undefined,
): boolean {
  return (
    image.channels.some((channel) => channels.has(channel) || channel === own) &&
    (rights.channels === null || image.channels.some((channel) => rights.channels?.has(channel))) &&
    (rights.committees === null || hasScope(image, "committee", rights.committees)) &&
    (rights.elections === null || hasScope(image, "election", rights.elections)) &&
    (filter === undefined || rowPasses(filter, (column) => knownValue(image, column, oversize, mask)))
  )
}

/** What a filter may know of a column: it must not reveal what is not shown. */
function knownValue({ row }: Image, column: string, oversize: boolean, mask: Mask) {
  const lost = oversize && !row.has(column) && !mask.columns.has(column)
  return lost ? UNKNOWN : shown(row, column, mask)
}

function hasScope(image: Image, prefix: string, allowed: ReadonlySet<string>): boolean {
  return image.channels.some((channel) => {
    const [found, id] = splitChannel(channel)
    return found === prefix && allowed.has(id)
  })
}

/** Whether a row of the table could be seen: TRUNCATE and bulk loads name no rows. */
function couldSee(meta: Meta, { channels, rights }: Subscription, own: string | undefined): boolean {
  const could = (channel: string) => channel === ALL || Object.hasOwn(meta.scope, splitChannel(channel)[0])
  return (
    ([...channels].some(could) || (own !== undefined && could(own))) &&
    (rights.channels === null || [...rights.channels].some(could)) &&
    (rights.committees === null || (rights.committees.size > 0 && "committee" in meta.scope)) &&
    (rights.elections === null || (rights.elections.size > 0 && "election" in meta.scope))
  )
}
