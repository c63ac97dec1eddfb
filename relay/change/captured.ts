/** What the capture writes of a row: its images, and which versions of it they are. Pure. */

import { endOfValue, skipSpace } from "./row.ts"

/** The texts of a captured row, each image as PostgreSQL wrote it. */
export interface Captured {
  readonly images: readonly string[]
  /** One an image, or none. */
  readonly versions: readonly string[]
  /** The transaction that made a deleted version, modulo 2^32. */
  readonly xmin: string | undefined
  /** A new row that nothing had touched when it was logged. */
  readonly live: boolean
}

/** A row's place in its table, as PostgreSQL writes a tid; an xid, and the oid of a partition. */
const PLACE = /^\(\d{1,10},\d{1,5}\)$/
const NUMBER = /^\d{1,10}$/

/**
 * Cuts captured data: a row alone, or an array of images, the place of each, of a deleted one its xmin, and the partition
 * in which they are; the last three may be missing.
 * @param key columns that each image must have.
 * @throws SyntaxError or RangeError if it is anything else. The message may hold row data.
 */
export function cutCaptured(
  text: string,
  op: "insert" | "update" | "delete",
  key: readonly string[],
): Captured {
  // Row data goes out unread, and what follows cuts it without looking: so it is proven whole here, once a change.
  const parts: unknown = JSON.parse(text)
  if (op === "insert" && isRow(parts, key))
    return { images: [text], versions: [], xmin: undefined, live: true }
  if (!Array.isArray(parts)) throw new SyntaxError("captured data must be an array")
  const count = op === "update" ? 2 : 1
  const values = parts.slice(0, count)
  if (values.length < count || !values.every((value) => isRow(value, key)))
    throw new SyntaxError("captured data must begin with rows that have their key")
  const images: string[] = []
  for (let at = text.indexOf("{"); images.length < count; at = text.indexOf("{", at)) {
    const end = endOfValue(text, at)
    images.push(text.slice(at, end))
    at = skipSpace(text, end)
  }
  return { images, ...versionsOf(parts.slice(count), count, op === "delete"), live: false }
}

function isRow(value: unknown, key: readonly string[]): boolean {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false
  return key.every((name) => Object.hasOwn(value, name))
}

function versionsOf(
  rest: readonly unknown[],
  count: number,
  deleted: boolean,
): Pick<Captured, "versions" | "xmin"> {
  const texts = rest.map((value) => (typeof value === "string" ? value : ""))
  const places = texts.slice(0, count)
  const [xmin, ...numbers] = deleted ? texts.slice(count) : [undefined, ...texts.slice(count)]
  const known =
    texts.length === 0 ||
    (places.length === count &&
      places.every((text) => PLACE.test(text)) &&
      (!deleted || NUMBER.test(xmin ?? "")) &&
      numbers.length <= 1 &&
      numbers.every((text) => NUMBER.test(text ?? "")))
  if (!known) throw new SyntaxError("captured data must end with the places of its rows")
  return { versions: places.map((place) => `${numbers[0] ?? ""}:${place}`), xmin }
}

/** The text that `cutCaptured` cuts like this. */
export function capturedText({ images, versions, xmin, live }: Captured): string {
  if (live) return images[0] ?? ""
  const leaf = versions[0]?.slice(0, versions[0].indexOf(":")) ?? ""
  const places = versions.map((version) => version.slice(version.indexOf(":") + 1))
  const rest = [...places, ...(xmin === undefined ? [] : [xmin]), ...(leaf === "" ? [] : [leaf])]
  return `[${[...images, ...rest.map((text) => `"${text}"`)].join(", ")}]`
}
