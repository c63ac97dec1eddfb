// @ts-check
/** One change as elements. */

import { make } from "../shared/element.js"
import { counted, fullOf, millisecondOf, shortOf } from "../shared/locale.js"
import { Exact, wholeText } from "./frame.js"

/** @typedef {import("./frame.js").Frame} Frame */

/**
 * @typedef {object} Entry A line of the stream: a change, or a note of the page itself.
 * @property {Frame | undefined} frame
 * @property {string} note
 * @property {"" | "warning" | "error"} tone
 * @property {number} at
 * @property {number} txSize How many changes its transaction had; 0 unless it is the last of them.
 * @property {HTMLElement | undefined} element
 * @property {string | undefined} searchable
 */

/** @typedef {import("../shared/element.js").Part} Part */

const BRIEF = 60
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:\d\d)?)$/
/** Hues of their own; other types share the rest. @type {Record<string, number>} */
const HUES = { guarantee_update: 0, attendance_update: 1, voting_update: 2, message: 3 }
const OWN_HUES = 4
const SHARED_HUES = 4

/** @param {string} type */
export const typeLabel = (type) => type.replace(/_update$/, "").replaceAll("_", " ")

/**
 * The number of a colour in the style sheet, the same for a type each time.
 * @param {string} type
 */
export function typeHue(type) {
  let hash = 0
  for (const letter of type) hash = (hash * 31 + letter.charCodeAt(0)) % 9_973
  return String(HUES[type] ?? OWN_HUES + (hash % SHARED_HUES))
}

/** @param {unknown} value */
function briefText(value) {
  const text = wholeText(value)
  if (typeof value === "string" && TIMESTAMP.test(text)) return shortOf(new Date(text))
  return text.length > BRIEF ? `${text.slice(0, BRIEF - 1)}…` : text
}

/** @param {unknown} value */
function kindOf(value) {
  if (value === null || value === undefined) return "value none"
  return typeof value === "number" || value instanceof Exact ? "value figure" : "value"
}

/**
 * @param {unknown} value
 * @param {(value: unknown) => string} write
 */
const valueElement = (value, write) => make("bdi", kindOf(value), write(value))

const arrow = () => make("span", "arrow", "→")

/**
 * A name and what belongs to it.
 * @param {string} name
 * @param {Part[]} parts
 */
const pair = (name, ...parts) => make("span", "pair", make("bdi", "name", name), " ", ...parts)

/**
 * Spaces let a line break between the pairs, and keep them apart for those who hear or copy them.
 * @param {HTMLElement[]} parts
 */
const spaced = (parts) => parts.flatMap((part, index) => (index === 0 ? [part] : [" ", part]))

/** @param {Frame} frame */
function describe(frame) {
  const { action, data, key, before, changed } = frame
  if (frame.type === "message") return [valueElement(frame.payload, briefText)]
  if (frame.oversize) return [make("span", "told", "too large to be sent; read the row again")]
  if (action === "truncate") return [make("span", "told", truncateText(frame))]
  if (action === "bulk_load") return [make("span", "told", bulkText(frame))]
  if (action === "leave") return [make("span", "told", "no longer in the channels that you see")]
  if (action === "update") {
    return (changed ?? []).map((name) =>
      pair(
        name,
        valueElement(before?.[name], briefText),
        " ",
        arrow(),
        " ",
        valueElement(data?.[name], briefText),
      ),
    )
  }
  return Object.entries(data ?? {})
    .filter(([name, value]) => value !== null && !(key && name in key))
    .map(([name, value]) => pair(name, valueElement(value, briefText)))
}

/** @param {Frame} frame */
const truncateText = ({ partition }) =>
  partition === undefined ? "all rows" : `all rows in ${partition}; read the table again`

/** @param {Frame} frame */
function bulkText({ rows, operation, partition }) {
  const what = rows === undefined ? "a bulk load" : counted(rows, "row")
  const how = operation === undefined ? "" : ` by ${operation}`
  return `${what}${how}${partition === undefined ? "" : ` in ${partition}`}; read the table again`
}

/** @param {Frame} frame */
function keyOf(frame) {
  if (frame.type === "message") return [make("bdi", "value", frame.channel ?? "")]
  const parts = Object.entries(frame.key ?? {}).map(([name, value]) =>
    pair(name, valueElement(value, wholeText)),
  )
  return parts.length > 0 ? parts : [make("bdi", "name", frame.table ?? "")]
}

/**
 * What the text filter looks through.
 * @param {Entry} entry
 */
export function searchableText(entry) {
  const { frame } = entry
  if (frame === undefined) return ""
  entry.searchable ??= [
    frame.type,
    frame.action,
    frame.table,
    frame.channel,
    frame.tx?.id,
    ...(frame.channels ?? []),
    ...[frame.key, frame.data, frame.before].flatMap((record) =>
      Object.entries(record ?? {}).map(([name, value]) => `${name} ${wholeText(value)}`),
    ),
    frame.payload === undefined ? "" : wholeText(frame.payload),
  ]
    .join(" ")
    .toLowerCase()
  return entry.searchable
}

/**
 * @param {Entry} entry
 * @returns {HTMLElement}
 */
export function createRow(entry) {
  const row = entry.frame === undefined ? createNote(entry) : createChange(entry, entry.frame)
  entry.element = row
  return row
}

/** @param {Entry} entry */
function createNote({ note, tone }) {
  const row = make("li", "note", make("span", "", note))
  row.dataset.tone = tone
  return row
}

/**
 * @param {Entry} entry
 * @param {Frame} frame
 */
function createChange(entry, frame) {
  const time = /** @type {HTMLTimeElement} */ (make("time", "time figure", millisecondOf(entry.at)))
  time.dateTime = frame.at ?? ""
  const badge = make("span", "badge", typeLabel(frame.type))
  badge.dataset.hue = typeHue(frame.type)
  const action = (frame.action ?? "sent").replaceAll("_", " ")
  const line = make(
    "span",
    "line",
    time,
    make("span", "kind", badge),
    make("span", "action", action),
    make("span", "key", ...spaced(keyOf(frame))),
    make("span", "description", ...spaced(describe(frame))),
    make("span", "tx figure", txText(entry)),
  )
  const details = document.createElement("details")
  details.append(make("summary", "", line))
  details.addEventListener("toggle", () => details.append(createDetails(entry, frame)), { once: true })
  const row = make("li", "change", details)
  row.dataset.action = frame.action ?? ""
  return row
}

/** @param {Entry} entry */
const txText = ({ frame, txSize }) =>
  txSize === 0 || frame?.tx === undefined
    ? ""
    : `tx ${frame.tx.id}${txSize > 1 ? ` · ${counted(txSize, "change")}` : ""}`

/**
 * Its transaction turned out to be complete.
 * @param {Entry} entry
 */
export function showTransaction(entry) {
  entry.element?.querySelector(".tx")?.replaceChildren(txText(entry))
}

/**
 * Everything that the change told, exactly.
 * @param {Entry} entry
 * @param {Frame} frame
 */
function createDetails(entry, frame) {
  const columns = Object.entries(frame.data ?? frame.key ?? {}).map(([name, value]) => {
    const was = frame.changed?.includes(name)
      ? [valueElement(frame.before?.[name], wholeText), " ", arrow(), " "]
      : []
    return make("div", "", make("dt", "", name), make("dd", "", ...was, valueElement(value, wholeText)))
  })
  if (frame.payload !== undefined)
    columns.push(
      make("div", "", make("dt", "", "payload"), make("dd", "", valueElement(frame.payload, wholeText))),
    )
  const facts = [
    fullOf(entry.at),
    frame.table,
    frame.tx === undefined ? undefined : `transaction ${frame.tx.id}`,
    frame.id === undefined ? undefined : `change ${frame.id}`,
    frame.channels?.join(", "),
  ]
  return make(
    "div",
    "details",
    make("dl", "", ...columns),
    make("p", "soft", facts.filter((fact) => fact !== undefined).join(" · ")),
  )
}
