/** What the capture writes of a row: its images, and which versions of it they are. Pure. */

import { endOfValue, skipSpace } from "./row.ts"

/** The texts of a captured row, each image as PostgreSQL wrote it. */
export interface Captured {
  readonly images: readonly string[]
  /** One an image, or none. */
  readonly versions: readonly string[]
}

/** A row's place in its table, as PostgreSQL writes a tid, and the oid of a partition. */
const PLACE = /^\(\d{1,10},\d{1,5}\)$/
const LEAF = /^\d{1,10}$/

/**
 * Cuts captured data: images, then the place of each, then the partition in which they are; the last two may be missing.
 * @param count of images.
 * @param key columns that each image must have.
 * @throws SyntaxError or RangeError if it is anything else. The message may hold row data.
 */
export function cutCaptured(text: string, count: 1 | 2, key: readonly string[]): Captured {
  // Row data goes out unread, and what follows cuts it without looking: so it is proven whole here, once a change.
  const parts: unknown = JSON.parse(text)
  if (!Array.isArray(parts)) throw new SyntaxError("captured data must be an array")
  const values = parts.slice(0, count)
  if (values.length < count || !values.every((value) => isRow(value, key)))
    throw new SyntaxError("captured data must begin with rows that have their key")
  const images: string[] = []
  for (let at = text.indexOf("{"); images.length < count; at = text.indexOf("{", at)) {
    const end = endOfValue(text, at)
    images.push(text.slice(at, end))
    at = skipSpace(text, end)
  }
  return { images, versions: versionsOf(parts.slice(count), count) }
}

function isRow(value: unknown, key: readonly string[]): boolean {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false
  return key.every((name) => Object.hasOwn(value, name))
}

function versionsOf(rest: readonly unknown[], count: number): string[] {
  const texts = rest.map((value) => (typeof value === "string" ? value : ""))
  const places = texts.filter((text) => PLACE.test(text))
  const leaves = texts.slice(places.length)
  const known = leaves.length === 0 || (leaves.length === 1 && LEAF.test(leaves[0] as string))
  if (!known || (places.length !== 0 && places.length !== count))
    throw new SyntaxError("captured data must end with the places of its rows")
  return places.map((place) => `${leaves[0] ?? ""}:${place}`)
}

/** The text that `cutCaptured` cuts like this. */
export function capturedText({ images, versions }: Captured): string {
  const leaf = versions[0]?.slice(0, versions[0].indexOf(":")) ?? ""
  const places = versions.map((version) => `"${version.slice(version.indexOf(":") + 1)}"`)
  return `[${[...images, ...places, ...(leaf === "" ? [] : [`"${leaf}"`])].join(", ")}]`
}
