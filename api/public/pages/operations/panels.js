// @ts-check
/** The panels: everything else that the report says, each part drawn anew only where it differs. */

import { byId, make, write } from "../shared/element.js"
import { number, shortOf } from "../shared/locale.js"
import { agoOf, fineSpanOf, spanOf } from "./span.js"

/** @typedef {import("./reports.js").Report} Report */
/** @typedef {import("../shared/element.js").Part} Part */

const MODES = {
  quiet: "Quiet: each commit rings",
  awake: "Awake: the relay polls, and writers need not ring",
  tail: "Tail: on the way back to the bell",
}
const KEY_SOURCES = { settings: "from the settings", jwks: "from the issuer" }

/** What is shown, by the id of where. @type {Map<string, string>} */
const shown = new Map()

/**
 * @template T
 * @param {string} id
 * @param {readonly T[]} items
 * @param {(item: T) => HTMLElement} makeItem
 */
function fill(id, items, makeItem) {
  const text = JSON.stringify(items)
  if (shown.get(id) === text) return
  shown.set(id, text)
  byId(id).replaceChildren(...items.map(makeItem))
}

/**
 * With a word in its place where there is nothing.
 * @param {string} id
 * @param {boolean} empty
 */
function hideIfEmpty(id, empty) {
  byId(id).hidden = empty
  byId(`${id}-none`).hidden = !empty
}

/** @param {...(Part | HTMLElement)} cells */
const row = (...cells) =>
  make("tr", "", ...cells.map((cell) => (cell instanceof HTMLTableCellElement ? cell : make("td", "", cell))))

/** @param {string} text */
const end = (text) => make("td", "end figure", text)

/** A reason, a limit or a mode as words. @param {string} name */
const words = (name) => name.replaceAll("_", " ")

/**
 * Names with a bar each, the longest first.
 * @param {string} id
 * @param {[name: string, count: number, what?: string][]} counts
 */
function fillBars(id, counts) {
  const most = Math.max(1, ...counts.map(([, count]) => count))
  fill(
    id,
    counts.toSorted(([, a], [, b]) => b - a),
    ([name, count, what]) => {
      const item = make(
        "li",
        "",
        ...(what === undefined ? [] : [badge(what)]),
        isolated("name", name),
        make("span", "figure", number(count)),
      )
      item.style.setProperty("--part", String(count / most))
      return item
    },
  )
}

/**
 * A name of the application's, which may run in another direction than the page.
 * @param {string} className
 * @param {string} text
 */
function isolated(className, text) {
  const made = make("bdi", className, text)
  made.title = text
  return made
}

/** @param {string} what */
function badge(what) {
  const made = make("span", "badge", what)
  made.dataset.what = what
  return made
}

/**
 * @param {string} id
 * @param {[term: string, text: string, tone?: "good" | "bad" | ""][]} facts
 */
function fillFacts(id, facts) {
  fill(id, facts, ([term, text, tone = ""]) => {
    const description = make("dd", "figure", make("bdi", "", text))
    if (tone !== "") description.dataset.tone = tone
    return make("div", "", make("dt", "", term), description)
  })
}

/** @param {Report} report */
function showDisconnects({ disconnects }) {
  hideIfEmpty("last", disconnects.last.length === 0)
  byId("reasons-part").hidden = disconnects.totals.length === 0
  fill("last-rows", disconnects.last, ({ what, code, reason, times, first_at, last_at }) => {
    const [first, last] = [shortOf(new Date(first_at)), shortOf(new Date(last_at))]
    return row(
      make("td", "when figure", ...(first === last ? [] : [make("span", "roomy", `${first} – `)]), last),
      badge(what),
      words(reason),
      end(code === null ? "" : String(code)),
      end(number(times)),
    )
  })
  fillBars(
    "reasons",
    disconnects.totals.map(({ what, reason, times }) => [words(reason), times, what]),
  )
}

/** @param {Report} report */
function showSource({ listener, feed, keys }) {
  const { bell } = feed
  fillFacts("source", [
    [
      "Listener",
      `${listener.state === "up" ? "Up" : "Down"} for ${spanOf(listener.since_seconds)}`,
      listener.state === "up" ? "good" : "bad",
    ],
    listener.proven_seconds_ago === null
      ? ["Its error", listener.error ?? "connecting", "bad"]
      : ["Last proof", agoOf(listener.proven_seconds_ago)],
    [
      "Feed",
      `${feed.state === "up" ? "Up" : "Down"} for ${spanOf(feed.since_seconds)}`,
      feed.state === "up" ? "good" : "bad",
    ],
    ...(feed.state === "up"
      ? []
      : [/** @type {[string, string, "bad"]} */ (["Its error", feed.error ?? "connecting", "bad"])]),
    ["Position", feed.cursor ?? "unknown"],
  ])
  fillFacts("bell", [
    ["Bell", MODES[bell.mode]],
    ["Heard", number(bell.heard)],
    ["Skipped", number(bell.skipped)],
    ["Polls", number(bell.polls)],
    [
      "Keys for tokens",
      `${number(keys.known)} ${KEY_SOURCES[keys.source]}${keys.fetched_seconds_ago === null ? "" : `, fetched ${agoOf(keys.fetched_seconds_ago)}`}`,
      keys.error === null ? "" : "bad",
    ],
    ...(keys.error === null
      ? []
      : [/** @type {[string, string, "bad"]} */ (["Their error", keys.error, "bad"])]),
  ])
}

/**
 * @param {"channels" | "users"} id
 * @param {number} count
 * @param {Record<string, number>} byName
 */
function showNames(id, count, byName) {
  const names = Object.entries(byName)
  hideIfEmpty(id, names.length === 0)
  const more = count - names.length
  write(
    byId(`${id}-count`),
    more > 0 ? `${number(count)}, the largest ${number(names.length)}` : number(count),
  )
  fillBars(id, names)
}

/** @param {Report} report */
function showTables({ tables, derived }) {
  hideIfEmpty("tables", tables.length === 0)
  write(byId("tables-count"), number(tables.length))
  const byProblem = tables.toSorted((a, b) => Number(a.problem === null) - Number(b.problem === null))
  fill("tables-rows", byProblem, ({ name, type, level, problem, not_captured }) => {
    const left = not_captured.length === 0 ? "" : ` Not captured: ${not_captured.join(", ")}.`
    const capture = make("td", "", problem === null ? `Complete.${left}` : `${problem}.${left}`)
    capture.dataset.tone = problem !== null ? "bad" : left === "" ? "good" : "warn"
    return row(isolated("", name), make("td", "roomy", type), make("td", "roomy", level), capture)
  })
  hideIfEmpty("derived", derived.length === 0)
  write(byId("derived-count"), number(derived.length))
  const byError = derived.toSorted((a, b) => Number(a.error === null) - Number(b.error === null))
  fill("derived-rows", byError, ({ type, channel, values, computed_seconds_ago, took_ms, error }) => {
    const ago = computed_seconds_ago === null ? "not yet" : agoOf(computed_seconds_ago)
    const computed = make("td", "figure", error === null ? ago : `${error}. Last computed: ${ago}`)
    if (error !== null) computed.dataset.tone = "bad"
    return row(
      isolated("", type),
      isolated("", channel),
      end(number(values)),
      make("td", "end roomy figure", took_ms === null ? "" : fineSpanOf(took_ms / 1_000)),
      computed,
    )
  })
}

/** @param {Report} report */
export function showPanels(report) {
  const { connections, limits_reached, workers, problems } = report
  byId("degraded").hidden = problems.length === 0
  fill("problems", problems, (problem) => make("li", "", problem))
  showDisconnects(report)
  showSource(report)
  showNames("channels", connections.channels, connections.by_channel)
  showNames("users", connections.users, connections.by_user)
  showTables(report)
  hideIfEmpty("limits", Object.keys(limits_reached).length === 0)
  fillBars(
    "limits",
    Object.entries(limits_reached).map(([limit, times]) => [words(limit), times]),
  )
  byId("workers-panel").hidden = workers === undefined
  write(byId("workers-count"), workers === undefined ? "" : number(workers.length))
  fillBars("workers", workers?.map(({ pid, connections }) => [`Process ${pid}`, connections]) ?? [])
}
