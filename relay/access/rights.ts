/** Rights: what a token lets its bearer see and join. */

import { ALL } from "../change/change.ts"

/**
 * What a token narrows its bearer to; null: no such claim. An empty set sees nothing. All three must hold. And the roles,
 * without which some columns are not shown.
 */
export interface Rights {
  readonly committees: ReadonlySet<string> | null
  readonly elections: ReadonlySet<string> | null
  readonly channels: ReadonlySet<string> | null
  readonly roles: ReadonlySet<string>
}

/** Whether a token may join a channel. Its own user channel is joined by itself. */
export function mayJoin(channel: string, user: string, rights: Rights): boolean {
  if (channel === ALL) return true
  const [prefix, id] = splitChannel(channel)
  if (prefix === "user") return id === user
  // What is derived for an election sums up all of its committees.
  if (prefix === "dashboard" && !(rights.committees === null && (rights.elections?.has(id) ?? true)))
    return false
  if (rights.channels !== null && !rights.channels.has(channel)) return false
  if (prefix === "committee" && rights.committees !== null && !rights.committees.has(id)) return false
  return !(prefix === "election" && rights.elections !== null && !rights.elections.has(id))
}

/** The channels among these that a token does not allow. */
export const forbiddenOf = (channels: Iterable<string>, user: string, rights: Rights): string[] =>
  [...channels].filter((channel) => !mayJoin(channel, user, rights))

/** Those that make a lane: its own user channel is joined anyhow, and makes none. */
export const laneChannels = (channels: readonly string[], user: string): string[] =>
  channels.filter((channel) => channel !== `user:${user}`)

/** What a connection begins with. */
export const startChannels = (requested: readonly string[], user: string): ReadonlySet<string> =>
  new Set(requested.length === 0 ? [ALL] : laneChannels(requested, user))

/** A channel's prefix, and its id if it has one. */
export function splitChannel(channel: string): [prefix: string, id: string] {
  const colon = channel.indexOf(":")
  return colon === -1 ? [channel, ""] : [channel.slice(0, colon), channel.slice(colon + 1)]
}
