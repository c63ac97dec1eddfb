/**
 * Keeps the position over a reload of the page, for one user and what the feed has subscribed to. A storage that is full
 * or forbidden costs repetitions, never a change.
 */

import type { SavedPosition } from "./position.ts"

/** As much of `sessionStorage` as is needed. */
export interface StorageLike {
  getItem(key: string): string | null
  setItem(key: string, value: string): void
  removeItem(key: string): void
}

/** Whose place it is. */
export interface Owner {
  user: string
  channels: readonly string[]
  /** The filter, as text. */
  filter: string
}

export interface PositionStore {
  /** @returns undefined if there is none, or it is another's. */
  read(owner: Owner): SavedPosition | undefined
  write(position: SavedPosition | undefined, owner: Owner): void
}

export interface PositionStoreDeps {
  /** Returns the storage. It may throw, as a browser does where storage is forbidden. */
  open(): StorageLike
  /** The place of a user. */
  key(user: string): string
  onFailure(error: unknown): void
}

export function createPositionStore({ open, key, onFailure }: PositionStoreDeps): PositionStore {
  let failing = false

  /** Reports one failure until it works again. */
  function attempt<T>(work: () => T): T | undefined {
    try {
      const result = work()
      failing = false
      return result
    } catch (error) {
      if (!failing) onFailure(error)
      failing = true
      return undefined
    }
  }

  return {
    read: (owner) => attempt(() => parse(open().getItem(key(owner.user)), owner)),
    write(position, owner) {
      attempt(() =>
        position === undefined
          ? open().removeItem(key(owner.user))
          : open().setItem(key(owner.user), JSON.stringify({ ...position, owner })),
      )
    },
  }
}

/** The storage of this page. */
export function sessionStorageHere(): StorageLike {
  const { sessionStorage } = globalThis as { sessionStorage?: StorageLike }
  if (sessionStorage === undefined) throw new Error("there is no sessionStorage here")
  return sessionStorage
}

function parse(text: string | null, { user, channels, filter }: Owner): SavedPosition | undefined {
  if (text === null) return undefined
  const { cursor, ids, owner } = JSON.parse(text) as Partial<SavedPosition & { owner: Owner }>
  if (typeof cursor !== "string" || !Array.isArray(ids)) throw new Error("the stored text is not a position")
  const isOurs =
    owner?.user === user &&
    owner.filter === filter &&
    // A place among more channels is one among some of them too.
    channels.every((channel) => owner.channels.includes(channel))
  return isOurs ? { cursor, ids: ids.map(String) } : undefined
}
