// @ts-check
/** The page: the token, the state of the connection, and what was counted. */

import { createConnection, TOKEN_EXPIRED } from "./connection.js"
import { counted, longClock, minuteOf, number, rate, secondOf, untilOf } from "./locale.js"
import { createPace } from "./pace.js"
import { typeHue, typeLabel } from "./row.js"
import { createStream, KEPT, SHOWN } from "./stream.js"

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {"starting" | "connecting" | "live" | "offline" | "signed-out"} State */

const TOKEN = "commitcast.token"
const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/
const CHANNELS_SHOWN = 4

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id))
/** @param {string} id */
const inputById = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id))

const tokenInput = inputById("token")
const filterInput = inputById("filter")
const pace = createPace()
const stream = createStream(byId("changes"), showStatus)
const connection = createConnection({
  onFrame: receive,
  onCheckpoint: stream.closeTransactions,
  onLive: goLive,
  onLost: goOffline,
  onRefused: refuse,
})

/** @type {State} */
let state = "starting"
let user = ""
let seen = 0
/** Also of those that were cleared away. */
let everSeen = false
let retryAt = 0
/** @type {Map<string, {count: number, chip: HTMLElement, figure: HTMLElement}>} */
const types = new Map()
/** The chosen types; empty: all. @type {Set<string>} */
const chosen = new Set()

/**
 * @param {State} to
 * @param {string} text
 * @param {string} announcement Empty: not worth interrupting anybody.
 */
function setState(to, text, announcement = "") {
  state = to
  document.documentElement.dataset.state = to
  byId("state").textContent = text
  document.title = to === "live" ? "CommitCast" : `${text} · CommitCast`
  byId("offline").hidden = to !== "offline"
  byId("sign-in").hidden = to !== "signed-out"
  byId("sign-out").hidden = to === "signed-out"
  byId("live").hidden = to === "signed-out" && seen === 0
  if (announcement !== "") byId("announcer").textContent = announcement
}

/** @param {string} token */
function connect(token) {
  sessionStorage.setItem(TOKEN, token)
  const held = byId("sign-in").contains(document.activeElement)
  setState("connecting", "Connecting…")
  if (held) byId("changes-title").focus()
  connection.start(token)
}

/**
 * @param {string} error
 */
function showSignIn(error) {
  sessionStorage.removeItem(TOKEN)
  byId("session").textContent = ""
  setState("signed-out", "Not signed in", "Not signed in.")
  showSignInError(error)
  tokenInput.focus()
}

/** @param {string} error */
function showSignInError(error) {
  byId("sign-in-error").textContent = error
  tokenInput.setAttribute("aria-invalid", String(error !== ""))
}

function startAfresh() {
  stream.clear()
  seen = 0
  types.clear()
  chosen.clear()
  showTypes()
}

/** @param {Frame} frame */
function receive(frame) {
  if (frame.type === "error") {
    stream.addNote(`The relay reports an error: ${frame.message} (${frame.code})`, "error")
    return
  }
  // Answers to requests that this page never makes.
  if (frame.id === undefined) return
  seen++
  everSeen = true
  pace.add()
  const type = types.get(frame.type)
  if (type === undefined) addType(frame.type)
  else type.count++
  stream.addChange(frame)
}

/**
 * @param {Frame} frame
 * @param {number | undefined} lostAt
 * @param {boolean} gap
 */
function goLive(frame, lostAt, gap) {
  const now = Date.now()
  if (user !== "" && user !== frame.user) startAfresh()
  else if (gap)
    stream.addNote(
      `Changes between ${secondOf(lostAt ?? now)} and ${secondOf(now)} may be missing`,
      "warning",
    )
  else if (lostAt !== undefined && frame.recovered)
    stream.addNote(
      `Connected again at ${secondOf(now)}; ${frame.replayed ? `${counted(frame.replayed, "change")} caught up with` : "nothing was missed"}`,
    )
  user = frame.user ?? ""
  setState("live", "Live", `Live, connected as user ${user}.`)
  const channels = frame.channels ?? []
  const more = channels.length - CHANNELS_SHOWN
  byId("session").textContent = [
    `User ${user}`,
    `${channels.slice(0, CHANNELS_SHOWN).join(", ")}${more > 0 ? ` and ${number(more)} more` : ""}`,
    frame.expires_in === undefined ? "" : `token until ${untilOf(new Date(now + frame.expires_in * 1_000))}`,
  ]
    .filter((part) => part !== "")
    .join(" · ")
}

/**
 * @param {number} lostAt
 * @param {number} nextAt
 * @param {string} reason
 */
function goOffline(lostAt, nextAt, reason) {
  retryAt = nextAt
  stream.closeTransactions()
  const text = `Offline since ${minuteOf(lostAt)}`
  setState("offline", text, state === "offline" ? "" : `${text}. Trying to connect again.`)
  byId("offline-since").textContent = `Offline since ${secondOf(lostAt)}.`
  byId("offline-reason").textContent =
    `${reason === "" ? "" : `The relay said: ${reason}. `}What is committed meanwhile does not show here.`
  showRetry()
}

/**
 * @param {number} code
 * @param {string} reason
 */
function refuse(code, reason) {
  stream.closeTransactions()
  showSignIn(
    code === TOKEN_EXPIRED
      ? "The token has expired. Sign in with a new one."
      : `The relay closed the connection: ${reason || "no reason given"} (${code}).`,
  )
}

/** @param {string} type */
function addType(type) {
  const figure = document.createElement("span")
  figure.className = "figure"
  const chip = document.createElement("button")
  chip.type = "button"
  chip.className = "chip"
  if (type !== "") chip.dataset.hue = typeHue(type)
  chip.append(type === "" ? "All" : typeLabel(type), " ", figure)
  chip.addEventListener("click", () => choose(type))
  types.set(type, { count: 1, chip, figure })
  showTypes()
}

/** @param {string} type */
function choose(type) {
  if (type === "") chosen.clear()
  else if (!chosen.delete(type)) chosen.add(type)
  applyFilter()
}

function applyFilter() {
  stream.filter(filterInput.value, chosen)
}

function showTypes() {
  if (!types.has("")) {
    addType("")
    return
  }
  const chips = [...types].sort(([a], [b]) => typeHue(a).localeCompare(typeHue(b)) || a.localeCompare(b))
  const all = /** @type {{chip: HTMLElement}} */ (types.get(""))
  byId("types").replaceChildren(
    all.chip,
    ...chips.filter(([type]) => type !== "").map(([, { chip }]) => chip),
  )
}

/** Each time that the list was touched. */
function showStatus() {
  byId("seen").textContent = number(seen)
  byId("rate").textContent = rate(pace.rate())
  for (const [type, { count, chip, figure }] of types) {
    figure.textContent = number(type === "" ? seen : count)
    chip.setAttribute("aria-pressed", String(type === "" ? chosen.size === 0 : chosen.has(type)))
  }
  const { paused, waiting, shown, full, forgot, filtered } = stream.status()
  byId("waiting").hidden = !paused
  byId("waiting").textContent =
    waiting === 0 ? "Paused. Nothing new yet." : `Paused. ${counted(waiting, "new change")} waiting.`
  byId("empty").hidden = shown > 0
  byId("empty-title").textContent =
    filtered && seen > 0
      ? `None of ${forgot ? `the last ${number(KEPT)}` : "the"} changes matches the filter.`
      : `Waiting for the ${everSeen ? "next" : "first"} change.`
  byId("empty-hint").hidden = everSeen
  byId("kept").textContent = full
    ? `The newest ${number(SHOWN)} are shown; the filter looks through the last ${number(KEPT)}.`
    : ""
}

function showRetry() {
  const left = Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000))
  byId("offline-retry").textContent = left === 0 ? "Trying now." : `Next attempt in ${number(left)} s.`
}

function tick() {
  byId("rate").textContent = rate(pace.rate())
  byId("bars").setAttribute("d", pace.bars())
  if (state === "offline") showRetry()
}

/** A token, or a link that carries one. @param {string} text */
function readToken(text) {
  const found = /[#&?]token=([^&\s]+)/.exec(text)
  return (found?.[1] ?? text).trim()
}

function takeTokenFromAddress() {
  if (!location.hash.includes("token=")) return undefined
  const token = readToken(location.hash)
  history.replaceState(null, "", location.pathname + location.search)
  return token
}

/** @param {string} token */
function trySignIn(token) {
  if (!JWT.test(token)) {
    showSignIn("This is not a token: a token is three parts joined by dots.")
    return
  }
  showSignInError("")
  tokenInput.value = ""
  connect(token)
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault()
  trySignIn(readToken(tokenInput.value))
})
byId("sign-out").addEventListener("click", () => {
  connection.stop()
  connection.forget()
  startAfresh()
  user = ""
  showSignIn("")
})
byId("retry").addEventListener("click", () => connection.retryNow())
byId("pause").addEventListener("click", () => {
  const paused = !stream.status().paused
  byId("pause").textContent = paused ? "Resume" : "Pause"
  document.documentElement.toggleAttribute("data-paused", paused)
  stream.pause(paused)
})
byId("clear").addEventListener("click", () => {
  seen = 0
  for (const type of types.values()) type.count = 0
  stream.clear()
})
filterInput.addEventListener("input", applyFilter)
addEventListener("hashchange", () => {
  const token = takeTokenFromAddress()
  if (token !== undefined) trySignIn(token)
})

document.documentElement.toggleAttribute("data-long-clock", longClock)
showTypes()
showStatus()
tick()
setInterval(tick, 1_000)

const given = takeTokenFromAddress() ?? sessionStorage.getItem(TOKEN)
if (given === null) showSignIn("")
else trySignIn(given)
