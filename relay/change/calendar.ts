/** PostgreSQL's calendar: the Gregorian one, also for the years before it, in days without end. Pure. */

export interface CalendarDate {
  /** 0 is the year 1 BC. */
  readonly year: number
  /** From 1. */
  readonly month: number
  readonly day: number
}

export const DAY_SECONDS = 86_400

/** Years and months are counted from March, so that a leap day is the last of its year. */
const MARCH = 3
const DAYS_OF_400_YEARS = 146_097
/** Of so many months from March, or from August, and so on, in which long and short ones alternate. */
const FIVE_MONTHS = 5
const DAYS_OF_FIVE_MONTHS = 153

/** The days since the 1st of March of the year 0. */
export function daysOf({ year, month, day }: CalendarDate): number {
  const from = month < MARCH ? year - 1 : year
  const months = (month + 12 - MARCH) % 12
  const leapDays = Math.floor(from / 4) - Math.floor(from / 100) + Math.floor(from / 400)
  return from * 365 + leapDays + Math.floor((months * DAYS_OF_FIVE_MONTHS + 2) / FIVE_MONTHS) + day - 1
}

/** The date of a day. */
export function dateOf(days: number): CalendarDate {
  const cycle = Math.floor(days / DAYS_OF_400_YEARS)
  const dayOfCycle = days - cycle * DAYS_OF_400_YEARS
  const leapDays =
    Math.floor(dayOfCycle / 1_460) - Math.floor(dayOfCycle / 36_524) + Math.floor(dayOfCycle / 146_096)
  const yearOfCycle = Math.floor((dayOfCycle - leapDays) / 365)
  const dayOfYear =
    dayOfCycle - (yearOfCycle * 365 + Math.floor(yearOfCycle / 4) - Math.floor(yearOfCycle / 100))
  const months = Math.floor((dayOfYear * FIVE_MONTHS + 2) / DAYS_OF_FIVE_MONTHS)
  const month = ((months + MARCH - 1) % 12) + 1
  return {
    year: yearOfCycle + cycle * 400 + (month < MARCH ? 1 : 0),
    month,
    day: dayOfYear - Math.floor((months * DAYS_OF_FIVE_MONTHS + 2) / FIVE_MONTHS) + 1,
  }
}
