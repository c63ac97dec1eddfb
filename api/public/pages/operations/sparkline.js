// @ts-check
/** A sparkline: one figure over the last two minutes, as a line over its area. */

import { GAP_MS, SPAN_MS } from "./trend.js"

/** @typedef {{at: number, value: number | null}} Point */

const SVG = "http://www.w3.org/2000/svg"
/** The box that the paths are drawn in; it is stretched to whatever room there is. */
const WIDTH = 240
const HEIGHT = 48
/** Room for the line's own width. */
const TOP = 3

/**
 * @param {string} tag
 * @param {string} className
 */
function shape(tag, className) {
  const made = document.createElementNS(SVG, tag)
  made.setAttribute("class", className)
  return made
}

/** A number with one leading digit of 1, 2 or 5 that is as large at least. @param {number} value */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value))
  return ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10) * power
}

/** @param {number} least What the full height stands for at least. */
export function createSparkline(least) {
  const svg = document.createElementNS(SVG, "svg")
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`)
  svg.setAttribute("preserveAspectRatio", "none")
  // It is told as text beside it, and in the table.
  svg.setAttribute("aria-hidden", "true")
  const area = shape("path", "area")
  const line = shape("path", "line")
  const mark = shape("path", "mark")
  svg.append(area, line, mark)

  return {
    svg,
    /**
     * @param {readonly Point[]} points
     * @param {number} now
     * @param {number | undefined} marked The time to mark.
     * @returns {number} what the full height stands for.
     */
    draw(points, now, marked) {
      const top = roundUp(Math.max(least, ...points.map(({ value }) => value ?? 0)))
      /** @param {number} at */
      const x = (at) => (WIDTH * (1 - (now - at) / SPAN_MS)).toFixed(1)
      /** @param {number} value */
      const y = (value) => (HEIGHT - 1 - (value / top) * (HEIGHT - TOP - 1)).toFixed(1)
      let lines = ""
      let areas = ""
      for (const run of runsOf(points)) {
        const path = run.map(({ at, value }) => `${x(at)} ${y(value)}`).join("L")
        const [first, last] = [run[0], run.at(-1)]
        if (first === undefined || last === undefined) continue
        lines += `M${path}${run.length === 1 ? "h.01" : ""}`
        areas += `M${x(first.at)} ${HEIGHT}L${path}L${x(last.at)} ${HEIGHT}z`
      }
      line.setAttribute("d", lines)
      area.setAttribute("d", areas)
      mark.setAttribute("d", marked === undefined ? "" : `M${x(marked)} 0V${HEIGHT}`)
      return top
    },
  }
}

/**
 * What is joined by lines.
 * @param {readonly Point[]} points
 */
function runsOf(points) {
  /** @type {{at: number, value: number}[][]} */
  const runs = []
  let lastAt = Number.NEGATIVE_INFINITY
  for (const { at, value } of points) {
    if (value === null) {
      lastAt = Number.NEGATIVE_INFINITY
      continue
    }
    if (at - lastAt > GAP_MS) runs.push([])
    runs.at(-1)?.push({ at, value })
    lastAt = at
  }
  return runs
}
