/** Keeps the place over a reload of the page. A storage that is full or forbidden costs a repetition, never a change. */

import type { Place } from "./position.ts"

/** As much of `sessionStorage` as is needed. */
export interface StorageLike {
  getItem(key: string): string | null
  setItem(key: string, value: string): void
  removeItem(key: string): void
}

export interface Shelf {
  read(): Place | undefined
  write(place: Place | undefined): void
}

/** @param open where the storage is; only to look for it may throw. */
export function createShelf(
  open: () => StorageLike,
  key: string,
  onFailure: (error: unknown) => void,
): Shelf {
  let failing = false

  /** One report until it works again. */
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
    read: () => attempt(() => readPlace(open().getItem(key))),
    write(place) {
      attempt(() =>
        place === undefined ? open().removeItem(key) : open().setItem(key, JSON.stringify(place)),
      )
    },
  }
}

function readPlace(text: string | null): Place | undefined {
  if (text === null) return undefined
  const { cursor, ids } = JSON.parse(text) as Partial<Record<keyof Place, unknown>>
  if (typeof cursor !== "string" || !Array.isArray(ids)) throw new Error("what is kept is no place")
  return { cursor, ids: ids.map(String) }
}
