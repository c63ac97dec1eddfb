// @ts-check
/** Lengths of time, as the reader's browser writes them. */

/** @param {string} unit */
const format = (unit) =>
  new Intl.NumberFormat(undefined, {
    style: "unit",
    unit,
    unitDisplay: unit === "second" || unit === "millisecond" ? "narrow" : "short",
    maximumFractionDigits: unit === "millisecond" ? 0 : 1,
  })
const days = format("day")
const hours = format("hour")
const minutes = format("minute")
const seconds = format("second")
const millis = format("millisecond")

/**
 * In whole seconds at the finest.
 * @param {number} length Seconds.
 */
export function spanOf(length) {
  const whole = Math.max(0, Math.floor(length))
  if (whole < 60) return seconds.format(whole)
  if (whole < 3_600) return minutes.format(Math.floor(whole / 60))
  const [large, small, of] = whole < 86_400 ? [hours, minutes, 60] : [days, hours, 24]
  const unit = whole < 86_400 ? 3_600 : 86_400
  const rest = Math.floor(((whole % unit) / unit) * of)
  return `${large.format(Math.floor(whole / unit))}${rest === 0 ? "" : ` ${small.format(rest)}`}`
}

/** @param {number} length Seconds. */
export const agoOf = (length) => (length < 1 ? "now" : `${spanOf(length)} ago`)

/**
 * As fine as milliseconds.
 * @param {number} length Seconds.
 */
export const fineSpanOf = (length) =>
  length < 1 ? millis.format(length * 1_000) : length < 60 ? seconds.format(length) : spanOf(length)
