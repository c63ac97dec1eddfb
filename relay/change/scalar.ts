/**
 * Scalars: values of a row, as the JSON text that PostgreSQL wrote, compared with those that a client names. Numbers
 * compare by value, dates and times as moments, other text by code point. Pure.
 */

import {
  compareDecimals,
  type Decimal,
  decimalText,
  INFINITY,
  MINUS_INFINITY,
  NOT_A_NUMBER,
  readDecimal,
} from "./decimal.ts"
import { compareMoments, type Moment, momentText, readMoment } from "./moment.ts"

/** What a client can name. */
export type Scalar = string | number | boolean | null

/** A scalar to compare with. Text that reads as a number also stands for the number. */
export interface Operand {
  readonly scalar: string | number
  readonly text: string | undefined
  readonly moment: Moment | undefined
  readonly decimal: Decimal | undefined
}

export function readOperand(scalar: string | number): Operand {
  const text = typeof scalar === "string" ? scalar : undefined
  return {
    scalar,
    text,
    moment: text === undefined ? undefined : readMoment(text),
    decimal: SPECIAL.get(String(scalar)) ?? readDecimal(String(scalar)),
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
    const special = SPECIAL.get(text)
    if (special !== undefined) return decimalText(special)
    const moment = readMoment(text)
    return moment === undefined ? `"${text}` : `@${momentText(moment)}`
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
    const text = JSON.parse(raw) as string
    const special = operand.decimal && SPECIAL.get(text)
    if (special && operand.decimal) return compareDecimals(special, operand.decimal)
    if (operand.text === undefined) return undefined
    const moment = operand.moment && readMoment(text)
    const order = moment && operand.moment && compareMoments(moment, operand.moment)
    return order ?? compareText(text, operand.text)
  }
  if (operand.decimal === undefined) return undefined
  const decimal = readDecimal(raw)
  return decimal && compareDecimals(decimal, operand.decimal)
}

const isText = (raw: string): boolean => raw.startsWith('"')

/** Numbers that PostgreSQL writes as strings in JSON. */
const SPECIAL: ReadonlyMap<string, Decimal> = new Map([
  ["NaN", NOT_A_NUMBER],
  ["Infinity", INFINITY],
  ["-Infinity", MINUS_INFINITY],
])

/** JavaScript orders by UTF-16, in which characters beyond U+FFFF come too early. */
function compareText(one: string, two: string): number {
  let at = 0
  while (at < one.length && one.charCodeAt(at) === two.charCodeAt(at)) at++
  return (one.codePointAt(at) ?? -1) - (two.codePointAt(at) ?? -1)
}
