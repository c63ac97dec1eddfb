/** Decimal numbers as PostgreSQL and JSON write them, of any length, compared by value. Pure. */

export interface Decimal {
  readonly sign: -1 | 0 | 1
  /** Without zeros before the first and after the last. */
  readonly digits: string
  /** Where the decimal point stands: the value is 0.digits times ten to this power. */
  readonly point: number
}

/** PostgreSQL's numbers that are none in JSON. In its order NaN is the greatest, and equal to itself. */
export const INFINITY: Decimal = { sign: 1, digits: "1", point: Number.POSITIVE_INFINITY }
export const MINUS_INFINITY: Decimal = { ...INFINITY, sign: -1 }
export const NOT_A_NUMBER: Decimal = { ...INFINITY, digits: "2" }

const SYNTAX = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,6}))?$/

/** @returns undefined if the text is no number. */
export function readDecimal(text: string): Decimal | undefined {
  const found = SYNTAX.exec(text)
  if (found === null) return undefined
  const [, minus, whole = "", fraction = "", exponent = "0"] = found
  const all = whole + fraction
  let start = 0
  while (all.charCodeAt(start) === ZERO) start++
  if (start === all.length) return { sign: 0, digits: "", point: 0 }
  let end = all.length
  while (all.charCodeAt(end - 1) === ZERO) end--
  return {
    sign: minus === "-" ? -1 : 1,
    digits: all.slice(start, end),
    point: whole.length - start + Number(exponent),
  }
}

/** Below 0 if the first is less, above if it is greater. */
export function compareDecimals(one: Decimal, two: Decimal): number {
  if (one.sign !== two.sign) return one.sign - two.sign
  if (one.point !== two.point) return one.sign * (one.point - two.point)
  if (one.digits === two.digits) return 0
  return one.digits < two.digits ? -one.sign : one.sign
}

/** Equal for all ways to write the same number. */
export const decimalText = ({ sign, digits, point }: Decimal): string =>
  sign === 0 ? "0" : `${sign < 0 ? "-" : ""}${digits}e${point}`

const ZERO = 0x30
