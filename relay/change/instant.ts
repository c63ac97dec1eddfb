/** Instants: what row_to_json writes of a timestamptz, which depends on the writer's time zone. Pure. */

import { DAY_SECONDS, dateOf, daysOf } from "./calendar.ts"
import { scanRow } from "./row.ts"

const LOCAL =
  /^(\d{4,6})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d{1,6})?([+-])(\d\d):(\d\d)(?::(\d\d))?( BC)?$/

/**
 * The text that a session in UTC would have written of the same instant.
 * @param text as row_to_json writes a timestamptz in any session, `infinity` too. Anything else stays as it is.
 */
export function utcText(text: string): string {
  if (text.endsWith("+00:00")) return text
  const found = LOCAL.exec(text)
  if (found === null) return text
  const [, years, month, day, hour, minute, second, fraction = "", sign, ...rest] = found
  const [zoneHour, zoneMinute, zoneSecond = "0", bc] = rest
  const year = bc === undefined ? Number(years) : 1 - Number(years)
  const days = daysOf({ year, month: Number(month), day: Number(day) })
  const offset = secondsOf(zoneHour, zoneMinute, zoneSecond)
  const seconds = days * DAY_SECONDS + secondsOf(hour, minute, second) + (sign === "+" ? -offset : offset)
  return written(seconds, fraction)
}

const secondsOf = (...parts: readonly (string | undefined)[]): number =>
  parts.reduce((sum, part) => sum * 60 + Number(part), 0)

function written(seconds: number, fraction: string): string {
  const days = Math.floor(seconds / DAY_SECONDS)
  const { year, month, day } = dateOf(days)
  const rest = seconds - days * DAY_SECONDS
  const clock = [rest / 3_600, (rest / 60) % 60, rest % 60]
    .map((part) => twoDigits(Math.floor(part)))
    .join(":")
  const [years, era] = year > 0 ? [year, ""] : [1 - year, " BC"]
  const date = [String(years).padStart(4, "0"), twoDigits(month), twoDigits(day)].join("-")
  return `${date}T${clock}${fraction}+00:00${era}`
}

const twoDigits = (value: number): string => String(value).padStart(2, "0")

/**
 * A row with these columns as a session in UTC would have written them. Most databases run in UTC, where nothing is done.
 * @throws SyntaxError as `scanRow`.
 */
export function inUtc(text: string, columns: readonly string[]): string {
  let away = false
  for (const raw of scanRow(text, columns).values()) away ||= raw.startsWith('"') && !raw.endsWith('+00:00"')
  if (!away) return text
  const fields: string[] = []
  for (const [name, raw] of scanRow(text)) {
    const value = columns.includes(name) && raw.startsWith('"') ? `"${utcText(raw.slice(1, -1))}"` : raw
    fields.push(`${JSON.stringify(name)}:${value}`)
  }
  return `{${fields.join(",")}}`
}
