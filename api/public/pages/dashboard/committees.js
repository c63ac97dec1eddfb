// @ts-check
/** The committees: a field each, that fills as they report and lights up when they do. */

import { byId, make, write } from "../shared/element.js"
import { counted, number } from "../shared/locale.js"

/** @typedef {import("./figures.js").Statistics} Statistics */

/** More than this many have no room for their names. */
const NAMED = 80
/** So many fit beside the turnout. */
const FEW = 14
const LIT = "lit"

/** @param {HTMLElement} grid */
export function createCommittees(grid) {
  /** @type {Map<number, ReturnType<typeof createField>>} */
  const fields = new Map()

  function createField() {
    const name = make("bdi", "name")
    const report = make("span", "report figure")
    const field = make("li", "committee", name, " ", report)
    field.addEventListener("animationend", () => field.classList.remove(LIT))
    return { field, name, report, entries: -1, votes: -1 }
  }

  return {
    /** @param {Statistics} statistics */
    show({ committees, counting }) {
      const dense = committees.length > NAMED
      grid.toggleAttribute("data-dense", dense)
      byId("board").toggleAttribute("data-few", committees.length <= FEW)
      const shown = committees.map(({ id, name }) => {
        const known = fields.get(id)
        const field = known ?? createField()
        fields.set(id, field)
        const { entries, verified, votes } = counting.by_committee[id] ?? {
          entries: 0,
          verified: 0,
          votes: 0,
        }
        const state = entries === 0 ? "none" : verified === entries ? "verified" : "entered"
        field.field.dataset.reported = state
        write(field.name, name)
        write(field.report, entries === 0 ? "–" : dense ? counted(votes, "vote") : number(votes))
        field.field.title =
          entries === 0 ? `${name}: not yet` : `${name}: ${counted(votes, "vote")}, ${state}`
        if (known !== undefined && (field.entries !== entries || field.votes !== votes))
          field.field.classList.add(LIT)
        field.entries = entries
        field.votes = votes
        return field.field
      })
      if (
        shown.length !== grid.children.length ||
        shown.some((field, index) => grid.children[index] !== field)
      )
        grid.replaceChildren(...shown)
      write(
        byId("committees-told"),
        `${number(counting.committees_reported)} of ${number(counting.committees)} reported`,
      )
      byId("committees-bar").style.setProperty(
        "--length",
        String(counting.committees === 0 ? 0 : counting.committees_reported / counting.committees),
      )
    },
    clear() {
      fields.clear()
      grid.replaceChildren()
    },
  }
}
