// @ts-check
/** The gauges: six figures, each with its last two minutes; and the same as a table, for those who do not see lines. */

import { byId, make, write } from "../shared/element.js"
import { number, rate, secondOf } from "../shared/locale.js"
import { fineSpanOf } from "./span.js"
import { createSparkline } from "./sparkline.js"
import { closesOf, createTrend, meanOf, refusalsOf, SPAN_MS } from "./trend.js"

/** @typedef {import("./reports.js").Report} Report */
/** @typedef {import("./trend.js").Name} Name */

/** @param {number} value */
const pace = (value) => (value >= 100 ? number(Math.round(value)) : rate(value))

/**
 * @typedef {object} Gauge
 * @property {Name} name
 * @property {string} title
 * @property {string} unit
 * @property {number} least What the height of its picture stands for at least.
 * @property {(value: number) => string} format
 * @property {(report: Report) => string} note
 */

/** @type {readonly Gauge[]} */
const GAUGES = [
  {
    name: "connections",
    title: "Connections",
    unit: "",
    least: 5,
    format: (value) => number(Math.round(value)),
    note: ({ connections: { users, lanes, replaying } }) =>
      [
        `${number(users)} ${users === 1 ? "user" : "users"}`,
        `${number(lanes)} ${lanes === 1 ? "lane" : "lanes"}`,
        replaying === 0 ? "" : `${number(replaying)} not live yet`,
      ]
        .filter((part) => part !== "")
        .join(" · "),
  },
  {
    name: "changes",
    title: "Changes read",
    unit: "a second",
    least: 5,
    format: pace,
    note: ({ totals }) => `${number(totals.changes)} since the start`,
  },
  {
    name: "deliveries",
    title: "Deliveries",
    unit: "a second",
    least: 5,
    format: pace,
    note: ({ totals }) => `${number(totals.deliveries)} since the start`,
  },
  {
    name: "lag",
    title: "Lag",
    unit: "",
    least: 1,
    format: fineSpanOf,
    note: () => "up to a second where nothing happens",
  },
  {
    name: "connects",
    title: "Connects",
    unit: "a second",
    least: 1,
    format: pace,
    note: ({ totals }) => `${number(totals.connects)} since the start`,
  },
  {
    name: "closes",
    title: "Closes",
    unit: "a second",
    least: 1,
    format: pace,
    note: (report) =>
      `${number(closesOf(report))} since the start · ${number(refusalsOf(report))} refused at the door`,
  },
]

/** A row of the table. Milliseconds. */
const STEP_MS = 10_000
const UNKNOWN = "–"

export function createGauges() {
  const trend = createTrend()
  /** The time that the pointer is at, as a part of the picture's width. @type {number | undefined} */
  let pointed
  const gauges = GAUGES.map((gauge) => {
    const value = make("span", "figure")
    const below = make("p", "soft figure")
    const top = make("span", "top soft figure")
    const line = createSparkline(gauge.least)
    const picture = make("div", "picture", line.svg, top)
    byId("trends").append(
      make(
        "article",
        "card trend",
        make("h3", "", gauge.title),
        make("p", "value", value, gauge.unit === "" ? "" : make("span", "unit", ` ${gauge.unit}`)),
        picture,
        below,
      ),
    )
    picture.addEventListener("pointermove", ({ clientX }) => point(picture, clientX))
    picture.addEventListener("pointerleave", () => point(picture, undefined))
    byId("as-table-head").append(columnOf(gauge))
    return { ...gauge, value, below, top, line }
  })

  /** @param {Gauge} gauge */
  function columnOf({ title, unit }) {
    const header = make("th", "end", unit === "" ? title : `${title} ${unit}`)
    header.setAttribute("scope", "col")
    return header
  }

  /**
   * @param {HTMLElement} picture
   * @param {number | undefined} clientX
   */
  function point(picture, clientX) {
    const { left, width } = picture.getBoundingClientRect()
    const part = clientX === undefined ? undefined : (clientX - left) / width
    pointed = part === undefined || document.dir !== "rtl" ? part : 1 - part
    draw()
  }

  /** Moves on with the time, also where no report comes. */
  function draw() {
    const now = performance.now()
    const samples = trend.samples()
    const wanted = pointed === undefined ? undefined : now - SPAN_MS * (1 - pointed)
    const shown =
      wanted === undefined
        ? undefined
        : samples.toSorted((a, b) => Math.abs(a.at - wanted) - Math.abs(b.at - wanted))[0]
    for (const { name, format, value, line, top } of gauges) {
      const points = samples.map(({ at, [name]: value }) => ({ at, value }))
      write(top, format(line.draw(points, now, shown?.at)))
      const told = shown === undefined ? trend.now(name) : shown[name]
      write(value, told === null ? UNKNOWN : format(told))
    }
    document.documentElement.toggleAttribute("data-pointed", shown !== undefined)
    byId("history").dataset.at =
      shown === undefined ? "" : `At ${secondOf(Date.now() - performance.now() + shown.at)}.`
    fillTable(now)
  }

  /** @param {number} now */
  function fillTable(now) {
    if (byId("table").hidden) return
    const samples = trend.samples()
    const rows = Array.from({ length: SPAN_MS / STEP_MS }, (_, step) => now - step * STEP_MS)
      .filter((until) => samples.some(({ at }) => at > until - STEP_MS && at <= until))
      .map((until) => {
        const header = make("th", "figure", secondOf(Date.now() - now + until - STEP_MS))
        header.setAttribute("scope", "row")
        const cells = gauges.map(({ name, format }) => {
          const mean = meanOf(samples, name, until - STEP_MS, until)
          return make("td", "end figure", mean === null ? UNKNOWN : format(mean))
        })
        return make("tr", "", header, ...cells)
      })
    byId("as-table-rows").replaceChildren(...rows)
  }

  byId("as-table").addEventListener("click", () => {
    const opened = byId("table").hidden
    byId("table").hidden = !opened
    byId("as-table").setAttribute("aria-expanded", String(opened))
    draw()
  })

  return {
    /** @param {Report} report */
    show(report) {
      trend.add(report)
      for (const { note, below } of gauges) write(below, note(report))
      draw()
    },
    draw,
    clear: trend.clear,
  }
}
