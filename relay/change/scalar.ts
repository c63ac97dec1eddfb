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

/** A value of a row, read once for everybody who compares with it. */
export interface Value {
  /** Equal for all values that are equal to it. */
  readonly identity: string
  /** Of a text; what lies beyond all that a client can name is cut off. */
  readonly text: string | undefined
  readonly moment: Moment | undefined
  /** Of a number, which may be written as text. */
  readonly decimal: Decimal | undefined
}

const plain = (identity: string): Value => ({
  identity,
  text: undefined,
  moment: undefined,
  decimal: undefined,
})
/** Of a column that is null, missing or hidden. */
export const NULL = plain("null")
/** Equal to nothing that a client can name. */
const COMPOUND = plain("{}")

/** @param raw its JSON text; undefined, for a missing column, is the same as null. */
export function readValue(raw: string | undefined): Value {
  if (raw === undefined) return NULL
  if (raw.startsWith("{") || raw.startsWith("[")) return COMPOUND
  if (raw.startsWith('"')) return readText(beginningOf(raw))
  const decimal = readDecimal(raw)
  return decimal === undefined ? plain(raw) : { ...plain(decimalText(decimal)), decimal }
}

function readText(text: string): Value {
  const decimal = SPECIAL.get(text)
  if (decimal !== undefined) return { ...plain(decimalText(decimal)), text, decimal }
  const moment = readMoment(text)
  return { ...plain(moment === undefined ? `"${text}` : `@${momentText(moment)}`), text, moment }
}

/** The most characters of a text that a client can name, and a little more: a text that is as long equals none of them. */
const MAX_TEXT = 300
/** `\uFFFF` */
const LONGEST_ESCAPE = 6

/** As much of a text as can matter. @param raw its JSON text. */
function beginningOf(raw: string): string {
  const most = 1 + MAX_TEXT * LONGEST_ESCAPE
  if (raw.length <= most) return JSON.parse(raw) as string
  let end = most
  // Not in the middle of an escape, nor of what only looks like one.
  for (let at = 1; at < most; at += raw[at] === "\\" ? (raw[at + 1] === "u" ? LONGEST_ESCAPE : 2) : 1)
    end = at
  return JSON.parse(`${raw.slice(0, end)}"`) as string
}

/** The identities of the values that a scalar stands for. */
export function identitiesOf(scalar: Scalar): string[] {
  const own = readValue(JSON.stringify(scalar)).identity
  const decimal = typeof scalar === "string" ? readDecimal(scalar) : undefined
  return decimal === undefined ? [own] : [own, decimalText(decimal)]
}

/** Below 0 if the value is less than the operand, above if it is greater; undefined if they cannot be compared. */
export function orderOf({ text, moment, decimal }: Value, operand: Operand): number | undefined {
  if (decimal !== undefined && operand.decimal !== undefined) return compareDecimals(decimal, operand.decimal)
  if (text === undefined || operand.text === undefined) return undefined
  const order = moment && operand.moment && compareMoments(moment, operand.moment)
  return order ?? compareText(text, operand.text)
}

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
