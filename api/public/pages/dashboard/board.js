// @ts-check
/** The board: the numbers of an election, as the relay last told them. Databases without the demo's schema have none. */

import { byId } from "../shared/element.js"
import { number } from "../shared/locale.js"
import { dashboardOf } from "../shared/token.js"
import { createCommittees } from "./committees.js"
import { readResults, readStatistics } from "./figures.js"
import { createResults, leadText } from "./results.js"
import { createTallies } from "./tallies.js"
import { createTurnout } from "./turnout.js"

/** @typedef {import("./figures.js").Results} Results */
/** @typedef {import("./figures.js").Statistics} Statistics */

/** Between two announcements, for those who hear the page. */
const QUIET_MS = 20_000

/** @param {() => void} onChoice Another election is looked at, or the first is known. */
export function createBoard(onChoice) {
  const choice = /** @type {HTMLSelectElement} */ (byId("election"))
  const results = createResults(byId("results"))
  const turnout = createTurnout()
  const committees = createCommittees(byId("committees"))
  const guarantees = createTallies(byId("guarantees-bar"), byId("guarantees"), [
    "confirmed",
    "pledged",
    "withdrawn",
  ])
  const entries = createTallies(byId("entries-bar"), byId("entries"), ["verified", "entered"])
  /** @type {NodeListOf<HTMLElement>} */
  const statisticsCards = document.querySelectorAll("[data-of=statistics]")
  /** By election. @type {Map<string, Results>} */
  const resultsOf = new Map()
  /** By channel. @type {Map<string, Statistics>} */
  const statisticsOf = new Map()
  let chosen = ""
  /** Whether the person has chosen it. */
  let picked = false
  /** Whether the elections to choose from have changed. */
  let stale = false
  let everDrawn = false
  let scheduled = false
  let announced = ""
  let quietUntil = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let later

  /** The dashboard of all where there is one election: rows may name none. */
  const scope = () => (resultsOf.size > 1 ? chosen : "")

  function offer() {
    stale = false
    const elections = [...resultsOf].sort(([a], [b]) => Number(a) - Number(b))
    if (!picked) chosen = elections[0]?.[0] ?? ""
    choice.replaceChildren(
      ...elections.map(([id, { election }]) => new Option(election, id, false, id === chosen)),
    )
    byId("elections").hidden = elections.length < 2
    onChoice()
  }

  function schedule() {
    if (scheduled) return
    scheduled = true
    requestAnimationFrame(draw)
  }

  function draw() {
    scheduled = false
    if (stale) offer()
    const told = resultsOf.get(chosen)
    const statistics = statisticsOf.get(dashboardOf(scope())) ?? statisticsOf.get(dashboardOf(chosen))
    byId("board").hidden = told === undefined && statistics === undefined
    byId("results-card").hidden = told === undefined
    everDrawn ||= statistics !== undefined
    for (const card of statisticsCards) {
      card.hidden = !everDrawn
      // Nothing jumps while those of another election are on their way.
      card.toggleAttribute("data-waiting", statistics === undefined)
    }
    if (told !== undefined) {
      results.show(told)
      announce(told)
    }
    if (statistics === undefined) return
    turnout.show(statistics.attendance)
    committees.show(statistics)
    guarantees.show(statistics.guarantees.by_status)
    const { verified, entries: all } = statistics.counting
    entries.show({ verified, entered: all - verified })
  }

  /**
   * Who leads and how many have reported, when that has changed, and seldom.
   * @param {Results} told
   */
  function announce(told) {
    const text = `${leadText(told)}. ${number(told.committees_reported)} of ${number(told.committees)} committees have reported.`
    if (text.replace(/ by .*?\./, "") === announced.replace(/ by .*?\./, "")) return
    clearTimeout(later)
    const wait = Math.max(0, quietUntil - Date.now())
    later = setTimeout(() => {
      announced = text
      quietUntil = Date.now() + QUIET_MS
      byId("board-announcer").textContent = text
    }, wait)
  }

  choice.addEventListener("change", () => {
    chosen = choice.value
    picked = true
    statisticsOf.clear()
    results.clear()
    committees.clear()
    onChoice()
    schedule()
  })

  return {
    /**
     * @param {import("./session.js").Derived} message
     * @returns {boolean} whether it has a place here.
     */
    take(message) {
      const told = readResults(message)
      const statistics = readStatistics(message)
      if (told !== undefined) {
        const id = String(told.election_id)
        stale ||= resultsOf.get(id)?.election !== told.election
        resultsOf.set(id, told)
      }
      if (statistics !== undefined) statisticsOf.set(message.channel, statistics)
      if (told === undefined && statistics === undefined) return false
      schedule()
      return true
    },
    /** The elections whose dashboard would do, the best first; empty: of all together. */
    wanted: () => [scope(), chosen],
    clear() {
      resultsOf.clear()
      statisticsOf.clear()
      chosen = ""
      picked = false
      everDrawn = false
      clearTimeout(later)
      results.clear()
      committees.clear()
      byId("board").hidden = true
    },
  }
}
