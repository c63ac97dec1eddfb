// @ts-check
/** The operations page: who looks, whether what is shown is of now, and what it is. */

import { showCommands } from "../shared/commands.js"
import { byId, write } from "../shared/element.js"
import { minuteOf, number, secondOf, untilOf } from "../shared/locale.js"
import { createSignIn } from "../shared/sign-in.js"
import { createGauges } from "./gauges.js"
import { showPanels } from "./panels.js"
import { createReports } from "./reports.js"
import { spanOf } from "./span.js"

/** @typedef {import("./reports.js").Report} Report */
/** @typedef {"starting" | "connecting" | "live" | "degraded" | "stale" | "offline" | "signed-out"} State */

/** A report that is older is no word of the present. Milliseconds. */
const STALE_MS = 6_000

const gauges = createGauges()
const reports = createReports({ onReport: show, onFailed: goOffline, onRefused: refuse })
const signIn = createSignIn(takeToken)

/** @type {State} */
let state = "starting"
/** @type {Report | undefined} */
let last
/** When the last report came. */
let heardAt = 0
/** When the relay was first missed. @type {number | undefined} */
let lostAt
let retryAt = 0
let bearer = ""
/** The relays that have answered, the present one last. @type {Set<string>} */
const instances = new Set()

/**
 * @param {State} to
 * @param {string} text
 * @param {string} announcement Empty: not worth interrupting anybody.
 */
function setState(to, text, announcement = "") {
  state = to
  document.documentElement.dataset.state = to
  write(byId("state"), text)
  document.title = to === "live" ? "Operations · CommitCast" : `${text} · Operations · CommitCast`
  byId("away").hidden = to !== "offline" && to !== "stale"
  byId("sign-out").hidden = to === "signed-out"
  byId("live").hidden = last === undefined || to === "signed-out"
  if (announcement !== "") write(byId("announcer"), announcement)
}

/** @param {string} error Empty: none. */
function askForToken(error) {
  signOut(error === "" ? "Not signed in." : "")
  signIn.show(error)
}

/** @param {string} announcement */
function signOut(announcement) {
  last = undefined
  gauges.clear()
  instances.clear()
  lostAt = undefined
  write(byId("session"), "")
  byId("degraded").hidden = true
  setState("signed-out", "Not signed in", announcement)
}

/**
 * @param {string} token
 * @param {import("../shared/token.js").Claims} claims
 */
function takeToken(token, claims) {
  signIn.hide()
  const until = Number.isFinite(claims.expiresAt) ? `token until ${untilOf(new Date(claims.expiresAt))}` : ""
  bearer = [claims.user === "" ? "" : `user ${claims.user}`, until].filter((part) => part !== "").join(" · ")
  setState("connecting", "Asking…")
  reports.start(token)
}

/** @param {Report} report */
function show(report) {
  const since = lostAt
  const another = last !== undefined && report.instance !== last.instance
  const severalRelays = another && instances.has(report.instance)
  instances.delete(report.instance)
  instances.add(report.instance)
  heardAt = Date.now()
  lostAt = undefined
  if (another) {
    const text = severalRelays
      ? "Several relays answer at this address in turn: each report is of one of them."
      : `The relay was started anew at ${secondOf(heardAt - report.uptime_seconds * 1_000)}: its totals began again.`
    write(byId("history"), `The last two minutes. ${text}`)
  }
  const announcement = announcementOf(report, another)
  last = report
  if (report.status === "ok") setState("live", "Live", announcement)
  else setState("degraded", "Degraded", announcement)
  if (since !== undefined && !another)
    write(
      byId("history"),
      `The last two minutes. There was no report from ${secondOf(since)} to ${secondOf(heardAt)}.`,
    )
  showSession(report)
  gauges.show(report)
  showPanels(report)
}

/**
 * What is new enough to interrupt somebody.
 * @param {Report} report
 * @param {boolean} another
 */
function announcementOf({ status, problems }, another) {
  if (status === "degraded") return last?.status === "degraded" ? "" : `Degraded: ${problems.join("; ")}.`
  if (another) return "Live. The relay was started anew."
  return state === "live" ? "" : "Live."
}

/** @param {Report} report */
function showSession({ version, uptime_seconds }) {
  write(
    byId("session"),
    [`Version ${version}`, `up ${spanOf(uptime_seconds)}`, bearer].filter((part) => part !== "").join(" · "),
  )
}

/**
 * @param {string} reason
 * @param {number} nextAt
 */
function goOffline(reason, nextAt) {
  retryAt = nextAt
  lostAt ??= Date.now()
  const text = `Away since ${minuteOf(lostAt)}`
  setState("offline", text, state === "offline" ? "" : `The relay does not answer. Trying again.`)
  write(byId("away-title"), `No report since ${secondOf(heardAt === 0 ? lostAt : heardAt)}.`)
  write(
    byId("away-reason"),
    `The relay ${reason === "" ? "cannot be reached" : `is not to be had: ${reason}`}.`,
  )
  tick()
}

/**
 * @param {401 | 403} status
 * @param {string} reason
 */
function refuse(status, reason) {
  if (status === 401) signIn.forget()
  askForToken(
    status === 403
      ? "This token is not an admin's (403). The dashboard may be open to it; this page is not."
      : reason === "token expired"
        ? "The token has expired (401). Sign in with a new one."
        : `The relay does not accept this token (401): ${reason}.`,
  )
}

/** Each second: what is old is said to be, and grows older in sight. */
function tick() {
  if (last !== undefined) gauges.draw()
  const ageMs = Date.now() - heardAt
  if ((state === "live" || state === "degraded") && ageMs > STALE_MS && !document.hidden) {
    setState("stale", "Stale", "What is shown is old: the relay takes long to answer.")
    write(byId("away-title"), `No report since ${secondOf(heardAt)}.`)
    write(byId("away-reason"), "The relay takes long to answer.")
  }
  if (state !== "stale" && state !== "offline") return
  const age = last === undefined ? "" : `What is shown is ${spanOf(ageMs / 1_000)} old. `
  const left = Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000))
  const next = state === "stale" ? "" : left === 0 ? "Trying now." : `Next attempt in ${number(left)} s.`
  write(byId("away-age"), `${age}${next}`)
}

byId("sign-out").addEventListener("click", () => {
  reports.stop()
  signIn.forget()
  askForToken("")
})
byId("retry").addEventListener("click", () => reports.retryNow())
// A keyboard scrolls only what it can reach.
for (const scroller of document.querySelectorAll(".scroll")) scroller.setAttribute("tabindex", "0")
setInterval(tick, 1_000)

signOut("")
void showCommands()
signIn.start()
