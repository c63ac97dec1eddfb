// @ts-check
/** Numbers and times as the reader's browser writes them. */

const numbers = new Intl.NumberFormat()
const rates = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 })
const shares = new Intl.NumberFormat(undefined, {
  style: "percent",
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
})
const compact = new Intl.NumberFormat(undefined, { notation: "compact" })
const minutes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" })
const seconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" })
const millis = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
})
const days = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" })
const medium = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" })
const dates = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" })
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" })

/** @param {number} value */
export const number = (value) => numbers.format(value)

/** @param {number} value */
export const rate = (value) => rates.format(value)

/** @param {number} value From 0 to 1. */
export const share = (value) => shares.format(value)

/** For an axis. @param {number} value */
export const brief = (value) => compact.format(value)

/** @param {Date | number} at */
export const minuteOf = (at) => minutes.format(at)

/** @param {Date | number} at */
export const dateOf = (at) => dates.format(at)

/** @param {Date | number} at */
export const secondOf = (at) => seconds.format(at)

/** @param {Date | number} at */
export const millisecondOf = (at) => millis.format(at)

/** @param {Date | number} at */
export const fullOf = (at) => full.format(at)

/** @param {Date} at */
const isToday = (at) => at.toDateString() === new Date().toDateString()

/**
 * The clock time alone if it is of today.
 * @param {Date} at
 */
export const shortOf = (at) => (isToday(at) ? seconds : days).format(at)

/**
 * The same without seconds.
 * @param {Date} at
 */
export const untilOf = (at) => (isToday(at) ? minutes : medium).format(at)

/** Whether the clock has a word such as PM beside it, which takes room. */
export const longClock = seconds.formatToParts().some(({ type }) => type === "dayPeriod")

/**
 * @param {number} count
 * @param {string} noun
 */
export const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`

const RTL = /^(ar|arc|ckb|dv|fa|he|ks|ku-arab|pa-arab|ps|sd|ug|ur|yi)\b/i

/** How the reader's language runs. Not every browser tells. */
export function direction() {
  const locale = /** @type {{getTextInfo?: () => {direction: "ltr" | "rtl"}}} */ (
    new Intl.Locale(navigator.language)
  )
  return locale.getTextInfo?.().direction ?? (RTL.test(navigator.language) ? "rtl" : "ltr")
}
