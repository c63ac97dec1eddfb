// @ts-check
/** Parts of a whole: a bar in pieces, and a line for each. */

import { make, write } from "../shared/element.js"
import { number } from "../shared/locale.js"

/**
 * @param {HTMLElement} bar
 * @param {HTMLElement} list
 * @param {readonly string[]} order Parts that are always told, and first.
 */
export function createTallies(bar, list, order) {
  /** @type {Map<string, {piece: HTMLElement, line: HTMLElement, figure: HTMLElement}>} */
  const parts = new Map()

  /** @param {string} name */
  function partOf(name) {
    const known = parts.get(name)
    if (known !== undefined) return known
    const piece = make("span", "piece")
    const figure = make("dd", "figure")
    const line = make("div", "", make("dt", "", name), figure)
    piece.dataset.part = name
    line.dataset.part = name
    bar.append(piece)
    list.append(line)
    const part = { piece, line, figure }
    parts.set(name, part)
    return part
  }

  return {
    /** @param {Record<string, number>} counts */
    show(counts) {
      const whole = Object.values(counts).reduce((sum, count) => sum + count, 0)
      for (const name of [...new Set([...order, ...Object.keys(counts), ...parts.keys()])]) {
        const count = counts[name] ?? 0
        const { piece, figure } = partOf(name)
        piece.style.setProperty("--length", String(whole === 0 ? 0 : count / whole))
        write(figure, number(count))
      }
    },
  }
}
