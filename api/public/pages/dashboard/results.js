// @ts-check
/** The results of an election: a bar a candidate, in a running order that moves. */

import { byId, make, write } from "../shared/element.js"
import { counted, number, share } from "../shared/locale.js"

/** @typedef {import("./figures.js").Results} Results */

const MOVE = { duration: 600, easing: "cubic-bezier(0.3, 0, 0.1, 1)" }
const still = matchMedia("(prefers-reduced-motion: reduce)")

/** @param {HTMLElement} list */
export function createResults(list) {
  /** @type {Map<number, ReturnType<typeof createBar>>} */
  const bars = new Map()
  let election = 0

  function createBar() {
    const name = make("bdi", "")
    const votes = make("span", "votes figure")
    const part = make("span", "part figure")
    const fill = make("span", "fill")
    const row = make("li", "candidate", make("span", "name", name), votes, part, make("span", "track", fill))
    return { row, name, votes, part, fill }
  }

  /** @param {Results} results */
  function show({ election_id, candidates, votes }) {
    if (election !== election_id) {
      election = election_id
      bars.clear()
    }
    const most = Math.max(1, ...candidates.map((candidate) => candidate.votes))
    const before = new Map([...bars.values()].map(({ row }) => [row, row.offsetTop]))
    const rows = candidates.map((candidate) => {
      const bar = bars.get(candidate.candidate_id) ?? createBar()
      bars.set(candidate.candidate_id, bar)
      write(bar.name, candidate.name)
      write(bar.votes, number(candidate.votes))
      write(bar.part, votes === 0 ? "" : share(candidate.votes / votes))
      bar.fill.style.setProperty("--length", String(candidate.votes / most))
      bar.row.toggleAttribute("data-leads", candidate.votes === most)
      return bar.row
    })
    if (rows.some((row, index) => list.children[index] !== row) || list.children.length !== rows.length)
      list.replaceChildren(...rows)
    if (!still.matches) for (const row of rows) slide(row, before.get(row))
  }

  /**
   * From where it stood to where it stands.
   * @param {HTMLElement} row
   * @param {number | undefined} from
   */
  function slide(row, from) {
    const way = from === undefined ? 0 : from - row.offsetTop
    if (way !== 0) row.animate([{ transform: `translateY(${way}px)` }, { transform: "none" }], MOVE)
  }

  return {
    /** @param {Results} results */
    show(results) {
      show(results)
      write(byId("results-title"), results.election)
      write(byId("results-votes"), counted(results.votes, "vote"))
      write(byId("results-lead"), leadText(results))
    },
    clear() {
      bars.clear()
      list.replaceChildren()
    },
  }
}

/**
 * Who leads, in words.
 * @param {Results} results
 */
export function leadText({ candidates: [first, second] }) {
  if (first === undefined || first.votes === 0) return "No votes yet"
  if (second === undefined) return `${first.name} has ${counted(first.votes, "vote")}`
  if (first.votes === second.votes) return "A tie at the top"
  return `${first.name} leads by ${number(first.votes - second.votes)}`
}
