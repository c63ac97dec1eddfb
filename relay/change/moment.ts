/**
 * Moments: dates, times and instants, as PostgreSQL and programs write them, in the order that PostgreSQL has for them
 * in a session in UTC. Pure.
 */

import { type CalendarDate, DAY_SECONDS, dateOf, daysOf } from "./calendar.ts"
import {
  compareDecimals,
  type Decimal,
  decimalText,
  INFINITY,
  MINUS_INFINITY,
  readDecimal,
} from "./decimal.ts"

export interface Moment {
  /** On the line of all time, or in a day. They have no order between them. */
  readonly of: "time" | "day"
  /** Seconds. */
  readonly seconds: Decimal
  /** Seconds west of UTC. Orders two times of a day that are the same in UTC. */
  readonly west: number
}

const CLOCK = String.raw`(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?`
const ZONE = String.raw`(?:(Z)|([+-])(\d\d)(?::?(\d\d)(?::(\d\d))?)?)?`
/** A date, or a date and a time. JavaScript writes years of more than four digits with a sign. */
const DATE = new RegExp(String.raw`^([+-]\d{6}|\d{4,7})-(\d\d)-(\d\d)(?:[T ]${CLOCK}${ZONE})?( BC)?$`)
const TIME_OF_DAY = new RegExp(`^${CLOCK}${ZONE}$`)
/** So many seconds before the year 0 nothing was, so that no moment is negative. */
const BEGINNING = 10_000 * 366 * DAY_SECONDS

/** @param text without a zone it is in UTC, and without a time it is midnight. @returns undefined if it is no moment. */
export function readMoment(text: string): Moment | undefined {
  if (text === "infinity") return { of: "time", seconds: INFINITY, west: 0 }
  if (text === "-infinity") return { of: "time", seconds: MINUS_INFINITY, west: 0 }
  const dated = DATE.exec(text)
  if (dated !== null) {
    const [, year, month, day, ...rest] = dated
    const date = { year: Number(year), month: Number(month), day: Number(day) }
    return readDated(rest.at(-1) === undefined ? date : { ...date, year: 1 - date.year }, rest)
  }
  const time = TIME_OF_DAY.exec(text)
  const clock = time === null ? undefined : readClock(time.slice(1))
  return clock && momentOf("day", clock.seconds + clock.west, clock)
}

function readDated(date: CalendarDate, clockParts: readonly (string | undefined)[]): Moment | undefined {
  const days = daysOf(date)
  const found = dateOf(days)
  if (found.month !== date.month || found.day !== date.day) return undefined
  const clock = readClock(clockParts)
  return clock && momentOf("time", days * DAY_SECONDS + clock.seconds + clock.west, { ...clock, west: 0 })
}

interface ClockTime {
  readonly seconds: number
  /** The digits after the point. */
  readonly fraction: string
  readonly west: number
}

const momentOf = (of: Moment["of"], seconds: number, { fraction, west }: ClockTime): Moment | undefined => {
  const exact = readDecimal(`${BEGINNING + seconds}.${fraction}`)
  return exact && { of, seconds: exact, west }
}

/** @param parts of CLOCK and ZONE; all undefined: midnight. */
function readClock(parts: readonly (string | undefined)[]): ClockTime | undefined {
  const [hour = "0", minute = "0", second = "0", fraction = "0", , sign, ...zone] = parts
  const seconds = secondsOf(hour, minute, second)
  const [zoneHour = "0", zoneMinute = "0", zoneSecond = "0"] = zone
  const offset = secondsOf(zoneHour, zoneMinute, zoneSecond)
  const past = seconds === DAY_SECONDS && Number(fraction) > 0
  if (Number(minute) > 59 || Number(second) > 60 || seconds > DAY_SECONDS || past) return undefined
  if (Number(zoneMinute) > 59 || Number(zoneSecond) > 59 || offset >= DAY_SECONDS) return undefined
  return { seconds, fraction, west: sign === "+" ? 0 - offset : offset }
}

const secondsOf = (hour: string, minute: string, second: string): number =>
  (Number(hour) * 60 + Number(minute)) * 60 + Number(second)

/** Below 0 if the first is earlier, above if it is later; undefined if they have no order. */
export function compareMoments(one: Moment, two: Moment): number | undefined {
  if (one.of !== two.of) return undefined
  return compareDecimals(one.seconds, two.seconds) || one.west - two.west
}

/** Equal for all ways to write the same moment. */
export const momentText = ({ of, seconds, west }: Moment): string => `${of} ${decimalText(seconds)} ${west}`
