// @ts-check
/** Who came, added up over time, as a line with the room below it filled. */

import { byId, make, write } from "../shared/element.js"
import { brief, dateOf, minuteOf, number } from "../shared/locale.js"

/** @typedef {import("./figures.js").OverTime} OverTime */

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** Marks along the time, about. */
const MARKS = 6
/** What lies between two marks, in seconds. */
const BETWEEN = [60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400]

/** The height of the chart in its own measure; its width is that of the time. */
const HEIGHT = 100

/**
 * A round number that is not less, of which half is one too.
 * @param {number} most
 */
function roundUp(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)))
  return [1, 2, 3, 4, 5, 6, 8, 10].map((times) => times * power).find((round) => round >= most) ?? 20 * power
}

/**
 * @param {number} from
 * @param {number} until
 */
function marksBetween(from, until) {
  const wanted = (until - from) / MARKS / 1_000
  const between =
    1_000 * (BETWEEN.find((seconds) => seconds >= wanted) ?? Math.ceil(wanted / 86_400) * 86_400)
  const shift = new Date(from).getTimezoneOffset() * 60_000
  const marks = []
  for (let at = Math.ceil((from - shift) / between) * between + shift; at <= until; at += between)
    marks.push(at)
  return marks
}

export function createTurnout() {
  const line = byId("turnout-line")
  const area = byId("turnout-area")
  const times = byId("turnout-times")

  /** @param {OverTime} overTime */
  function draw({ from: start, step_seconds, present }) {
    const from = Date.parse(start)
    const step = step_seconds * 1_000
    const until = from + step * present.length
    let sum = 0
    // Each step ends with those who came in it.
    const sums = present.map((count) => (sum += count))
    const top = roundUp(sum)
    const points = sums
      .map((each, index) => `L${index + 1} ${(HEIGHT * (1 - each / top)).toFixed(2)}`)
      .join("")
    const path = `M0 ${HEIGHT}${points}`
    byId("turnout-chart").setAttribute("viewBox", `0 0 ${present.length} ${HEIGHT}`)
    line.setAttribute("d", path)
    area.setAttribute("d", `${path}V${HEIGHT}Z`)
    write(byId("turnout-top"), brief(top))
    write(byId("turnout-half"), brief(top / 2))
    write(byId("turnout-zero"), brief(0))
    const format = until - from > 2 * DAY_MS ? dateOf : minuteOf
    const marks = marksBetween(from, until).map((at) => {
      const mark = make("span", "", format(at))
      mark.style.setProperty("--at", String((at - from) / (until - from)))
      return mark
    })
    times.replaceChildren(...marks)
  }

  /** @param {OverTime} overTime */
  function lately({ from, step_seconds, present }) {
    const step = step_seconds * 1_000
    if (step > HOUR_MS) return ""
    const now = Date.now()
    const since = now - HOUR_MS
    const first = Date.parse(from)
    const end = first + present.length * step
    // Long ago, or by a clock that is ahead, as that of a night that is played.
    if (end < since || end > now + HOUR_MS) return `the latest at ${minuteOf(end - step)}`
    const came = present.filter((_, index) => first + (index + 1) * step > since)
    return `${number(came.reduce((sum, count) => sum + count, 0))} in the last hour`
  }

  return {
    /** @param {{present: number, over_time: OverTime | null}} attendance */
    show({ present, over_time }) {
      write(byId("turnout-present"), number(present))
      const drawn = over_time !== null && over_time.present.length > 0
      byId("turnout-plot").toggleAttribute("data-empty", !drawn)
      write(byId("turnout-lately"), drawn ? lately(over_time) : "Nobody yet")
      if (drawn) draw(over_time)
    },
  }
}
