/** Keeps the position over a reload of the page. A storage that is full or forbidden costs repetitions, never a change. */

import type { SavedPosition } from "./position.ts"

/** As much of `sessionStorage` as is needed. */
export interface StorageLike {
  getItem(key: string): string | null
  setItem(key: string, value: string): void
  removeItem(key: string): void
}

export interface PositionStore {
  read(): SavedPosition | undefined
  write(position: SavedPosition | undefined): void
}

/** @param open returns the storage. It may throw, as a browser does where storage is forbidden. */
export function createPositionStore(
  open: () => StorageLike,
  key: string,
  onFailure: (error: unknown) => void,
): PositionStore {
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
    read: () => attempt(() => parse(open().getItem(key))),
    write(position) {
      attempt(() =>
        position === undefined ? open().removeItem(key) : open().setItem(key, JSON.stringify(position)),
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

function parse(text: string | null): SavedPosition | undefined {
  if (text === null) return undefined
  const { cursor, ids } = JSON.parse(text) as Partial<Record<keyof SavedPosition, unknown>>
  if (typeof cursor !== "string" || !Array.isArray(ids)) throw new Error("the stored text is not a position")
  return { cursor, ids: ids.map(String) }
}
