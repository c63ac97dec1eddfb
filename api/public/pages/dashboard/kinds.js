// @ts-check
/** The kinds of changes that were seen: how many of each, and which the reader wants to see. */

import { make, write } from "../shared/element.js"
import { number } from "../shared/locale.js"
import { typeHue, typeLabel } from "./row.js"

/**
 * @param {HTMLElement} list
 * @param {(types: ReadonlySet<string>) => void} onChoice Empty: all.
 */
export function createKinds(list, onChoice) {
  /** @type {Map<string, {count: number, chip: HTMLButtonElement, figure: HTMLElement}>} */
  const kinds = new Map()
  /** @type {Set<string>} */
  const chosen = new Set()
  let total = 0
  const all = createChip("All", () => chosen.clear())
  list.replaceChildren(all.chip)

  /**
   * @param {string} label
   * @param {() => void} choose
   */
  function createChip(label, choose) {
    const figure = make("span", "figure")
    const chip = /** @type {HTMLButtonElement} */ (make("button", "chip", label, " ", figure))
    chip.type = "button"
    chip.addEventListener("click", () => {
      choose()
      onChoice(chosen)
    })
    return { chip, figure }
  }

  /** @param {string} type */
  function addKind(type) {
    const made = createChip(typeLabel(type), () => {
      if (!chosen.delete(type)) chosen.add(type)
    })
    made.chip.dataset.hue = typeHue(type)
    kinds.set(type, { count: 1, ...made })
    const sorted = [...kinds].sort(([a], [b]) => typeHue(a).localeCompare(typeHue(b)) || a.localeCompare(b))
    list.replaceChildren(all.chip, ...sorted.map(([, { chip }]) => chip))
  }

  return {
    /** @param {string} type */
    add(type) {
      total++
      const kind = kinds.get(type)
      if (kind === undefined) addKind(type)
      else kind.count++
    },
    total: () => total,
    show() {
      write(all.figure, number(total))
      all.chip.setAttribute("aria-pressed", String(chosen.size === 0))
      for (const [type, { count, chip, figure }] of kinds) {
        write(figure, number(count))
        chip.setAttribute("aria-pressed", String(chosen.has(type)))
      }
    },
    /** Counts anew. */
    reset() {
      total = 0
      for (const kind of kinds.values()) kind.count = 0
    },
    /** Knows of none. */
    clear() {
      total = 0
      kinds.clear()
      chosen.clear()
      list.replaceChildren(all.chip)
    },
  }
}
