/**
 * Scalars: values of a row, as the JSON text that PostgreSQL wrote, compared with those that a client names. Numbers
 * compare by value, times with a zone by their instant, other text by code point. Pure.
 */

import { compareDecimals, type Decimal, decimalText, readDecimal } from "./decimal.ts"

/** What a client can name. */
export type Scalar = string | number | boolean | null

/** A scalar to compare with. Text that reads as a number also stands for the number. */
export interface Operand {
  readonly scalar: string | number
  readonly text: string | undefined
  readonly instant: Decimal | undefined
  readonly decimal: Decimal | undefined
}

export function readOperand(scalar: string | number): Operand {
  const text = typeof scalar === "string" ? scalar : undefined
  return {
    scalar,
    text,
    instant: text === undefined ? undefined : readInstant(text),
    decimal: readDecimal(String(scalar)),
  }
}

/**
 * The identity of a value: equal for all values that are equal to it.
 * @param raw its JSON text; undefined, for a missing column, is the same as null.
 */
export function identityOf(raw: string | undefined): string {
  if (raw === undefined) return "null"
  if (isText(raw)) {
    const text = JSON.parse(raw) as string
    const instant = readInstant(text)
    return instant === undefined ? `"${text}` : `@${decimalText(instant)}`
  }
  const decimal = readDecimal(raw)
  return decimal === undefined ? raw : decimalText(decimal)
}

/** The identities of the values that a scalar stands for. */
export function identitiesOf(scalar: Scalar): string[] {
  const own = identityOf(JSON.stringify(scalar))
  const decimal = typeof scalar === "string" ? readDecimal(scalar) : undefined
  return decimal === undefined ? [own] : [own, decimalText(decimal)]
}

/** Below 0 if the value is less than the operand, above if it is greater; undefined if they cannot be compared. */
export function orderOf(raw: string | undefined, operand: Operand): number | undefined {
  if (raw === undefined) return undefined
  if (isText(raw)) {
    if (operand.text === undefined) return undefined
    const text = JSON.parse(raw) as string
    const instant = operand.instant && readInstant(text)
    return instant && operand.instant
      ? compareDecimals(instant, operand.instant)
      : compareText(text, operand.text)
  }
  if (operand.decimal === undefined) return undefined
  const decimal = readDecimal(raw)
  return decimal && compareDecimals(decimal, operand.decimal)
}

const isText = (raw: string): boolean => raw.startsWith('"')

const INSTANT = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/
/** The seconds from the year 0 to 1970, so that no instant is negative. */
const EPOCH = 62_167_219_200

/** A time with a zone as seconds since the year 0. */
function readInstant(text: string): Decimal | undefined {
  const found = INSTANT.exec(text)
  if (found === null) return undefined
  const seconds = Date.parse(`${found[1]}${found[3]}`) / 1_000 + EPOCH
  return readDecimal(`${seconds}.${found[2] ?? "0"}`)
}

/** JavaScript orders by UTF-16, in which characters beyond U+FFFF come too early. */
function compareText(one: string, two: string): number {
  let at = 0
  while (at < one.length && one.charCodeAt(at) === two.charCodeAt(at)) at++
  return (one.codePointAt(at) ?? -1) - (two.codePointAt(at) ?? -1)
}
