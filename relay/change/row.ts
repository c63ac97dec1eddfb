/**
 * A row as JSON text, never parsed into numbers: values stay the slices of text that PostgreSQL wrote, so that a bigint
 * or a numeric that a double cannot hold goes out exactly as it came.
 */

/** Column name to the JSON text of its value, in the row's order. */
export type Row = ReadonlyMap<string, string>

/**
 * Cuts the text of a JSON object into its top-level values.
 * @param text what row_to_json wrote: valid JSON, possibly with white space inside json columns.
 * @param wanted leaves out all other columns, and ends with the last of these.
 * @throws SyntaxError if it is not an object, as far as it is read.
 */
export function scanRow(text: string, wanted?: readonly string[]): Row {
  const row = new Map<string, string>()
  let at = skipSpace(text, 0)
  if (text.charCodeAt(at) !== OPEN_BRACE) throw new SyntaxError("a row must be a JSON object")
  at = skipSpace(text, at + 1)
  while (at < text.length && text.charCodeAt(at) !== CLOSE_BRACE) {
    const nameEnd = endOfString(text, at)
    const quoted = text.slice(at, nameEnd)
    const name = quoted.includes("\\") ? (JSON.parse(quoted) as string) : quoted.slice(1, -1)
    const valueStart = skipSpace(text, skipSpace(text, nameEnd) + 1)
    const valueEnd = endOfValue(text, valueStart)
    if (wanted === undefined || wanted.includes(name)) row.set(name, text.slice(valueStart, valueEnd))
    if (row.size === wanted?.length) return row
    at = skipSpace(text, valueEnd)
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1)
  }
  return row
}

/**
 * A value as the text of a channel or a right: a string without its quotes, a number as written.
 * @returns undefined for null, and for what cannot name a channel (objects, arrays, absent columns).
 */
export function scalarText(raw: string | undefined): string | undefined {
  if (raw === undefined || raw === "null") return undefined
  const first = raw.charCodeAt(0)
  if (first === QUOTE) return JSON.parse(raw) as string
  return first === OPEN_BRACE || first === OPEN_BRACKET ? undefined : raw
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d

/** The first position from this one on that is not white space. */
export function skipSpace(text: string, from: number): number {
  let at = from
  while (text.charCodeAt(at) <= 0x20) at++
  return at
}

function endOfString(text: string, from: number): number {
  let end = text.indexOf('"', from + 1)
  while (end !== -1 && isEscaped(text, end)) end = text.indexOf('"', end + 1)
  if (end === -1) throw new SyntaxError("a string in the row has no end")
  return end + 1
}

function isEscaped(text: string, quote: number): boolean {
  let backslashes = 0
  while (text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes++
  return backslashes % 2 === 1
}

/** Where the value that begins here ends. @throws SyntaxError if it does not. */
export function endOfValue(text: string, from: number): number {
  const first = text.charCodeAt(from)
  if (first === QUOTE) return endOfString(text, from)
  if (first !== OPEN_BRACE && first !== OPEN_BRACKET) {
    let at = from
    while (
      at < text.length &&
      text.charCodeAt(at) !== COMMA &&
      text.charCodeAt(at) !== CLOSE_BRACE &&
      text.charCodeAt(at) > 0x20
    )
      at++
    return at
  }
  let depth = 0
  let at = from
  while (at < text.length) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) {
      at = endOfString(text, at)
      continue
    }
    if (code === OPEN_BRACE || code === OPEN_BRACKET) depth++
    if (code === CLOSE_BRACE || code === CLOSE_BRACKET) depth--
    at++
    if (depth === 0) return at
  }
  throw new SyntaxError("a value in the row has no end")
}
