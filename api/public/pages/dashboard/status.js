// @ts-check
/** How the connection stands, said as it is: in the bar, in a notice, in the title, and for those who hear the page. */

import { byId, write } from "../shared/element.js"
import { counted, minuteOf, number, secondOf } from "../shared/locale.js"

/** @typedef {import("./session.js").Status} Status */
/** @typedef {"connecting" | "catching-up" | "live" | "offline" | "signed-out"} State */

/** Shorter than a person notices. */
const BRIEF_MS = 1_500

export function createStatus() {
  /** @type {State | "starting"} */
  let state = "starting"
  let resyncedAt = 0
  let retryAt = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let speaking

  /**
   * @param {State} to
   * @param {string} text
   * @param {string} announcement Empty: not worth interrupting anybody.
   */
  function set(to, text, announcement = "") {
    state = to
    document.documentElement.dataset.state = to
    write(byId("state"), text)
    document.title = to === "live" ? "CommitCast" : `${text} · CommitCast`
    byId("offline").hidden = to !== "offline"
    // What is over in a moment is not said at all.
    clearTimeout(speaking)
    if (announcement !== "")
      speaking = setTimeout(() => write(byId("announcer"), announcement), to === "signed-out" ? 0 : BRIEF_MS)
  }

  function tick() {
    if (state !== "offline") return
    const left = Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000))
    write(byId("offline-retry"), left === 0 ? "Trying now." : `Next attempt in ${number(left)} s.`)
  }

  return {
    /** @param {Status} status */
    show(status) {
      switch (status.kind) {
        case "connecting":
          return set("connecting", "Connecting…")
        case "catching_up":
          return set("catching-up", "Catching up…")
        case "live": {
          const { back } = status
          if (back?.missing) resyncedAt = Date.now()
          write(byId("resynced"), resyncedAt === 0 ? "" : `resynced ${minuteOf(resyncedAt)}`)
          return set(
            "live",
            "Live",
            back?.missing ? "Live again. Changes may be missing; the totals are current." : "Live.",
          )
        }
        case "offline": {
          const { since, reason } = status
          retryAt = status.retryAt
          const text = `Offline since ${minuteOf(since)}`
          write(byId("offline-since"), `Offline since ${secondOf(since)}.`)
          write(
            byId("offline-reason"),
            `${reason === "" ? "" : `The relay said: ${reason}. `}What you see is as of then.`,
          )
          set("offline", text, `${text}. Trying to connect again.`)
          return tick()
        }
        case "token_needed":
        case "ended":
          resyncedAt = 0
          write(byId("resynced"), "")
          return set("signed-out", "Not signed in", "Not signed in.")
      }
    },
    signedOut: () => state === "signed-out" || state === "starting",
    tick,
  }
}

/**
 * What a return deserves to be said of in the stream.
 * @param {import("./session.js").Back} back
 * @returns {[text: string, tone: "" | "warning"]}
 */
export function backText({ since, replayed, missing }) {
  const now = secondOf(Date.now())
  if (missing)
    return [
      `Resynced at ${now}: changes since ${secondOf(since)} may be missing here; the totals are current`,
      "warning",
    ]
  const caught = replayed > 0 ? `${counted(replayed, "change")} caught up with` : "nothing was missed"
  return [`Connected again at ${now}; ${caught}`, ""]
}
