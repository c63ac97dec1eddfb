// @ts-check
/** A session: a person, one token after another, and the feed that they open. */

import { connect } from "../../client/client.js"
import { readClaims } from "../shared/token.js"
import { parseFrame } from "./frame.js"

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {import("../../client/client.js").Feed} Feed */
/** @typedef {{type: string, action?: string | undefined, channel: string, at: string, data?: unknown}} Derived */

/**
 * @typedef {{kind: "connecting"}
 *   | {kind: "catching_up", since: number}
 *   | {kind: "live", welcome: Frame | undefined, back: Back | undefined}
 *   | {kind: "offline", since: number, retryAt: number, reason: string}
 *   | {kind: "token_needed", why: "expired" | "refused"}
 *   | {kind: "ended", reason: string}} Status
 */

/**
 * @typedef {object} Back From an absence.
 * @property {number} since
 * @property {number} replayed The changes that were caught up with.
 * @property {boolean} missing Whether changes may be missing all the same.
 */

/**
 * @typedef {object} Listener
 * @property {(status: Status) => void} onStatus
 * @property {(frame: Frame) => void} onChange
 * @property {(message: Derived) => void} onDerived
 * @property {() => void} onCheckpoint No transaction is halfway any more.
 * @property {(text: string) => void} onError
 * @property {() => void} onRenewalWanted Another token keeps the connection open beyond this one's end.
 */

const ALL = "election_updates"
/** Close codes. */
const EXPIRED = 4005
const REFUSED = 4500

/**
 * The library tells a close in words.
 * @param {string} cause
 */
function readCause(cause) {
  const [, code, reason] = /^closed with (\d+): (.*)/s.exec(cause) ?? []
  return { code: Number(code ?? 0), reason: reason ?? cause }
}

/**
 * @param {string} url
 * @param {string} firstToken
 * @param {string | undefined} cursor Where the page stands, if it shows something.
 * @param {Listener} listener
 */
export function createSession(url, firstToken, cursor, listener) {
  let token = firstToken
  /** Why the relay does not take it any more. @type {"expired" | "refused" | undefined} */
  let spent
  /** Those who wait for another. @type {((token: string) => void)[]} */
  const asking = []
  let heardAt = Date.now()
  /** Up to when the last connection was surely alive. @type {number | undefined} */
  let lostAt
  let everLive = false
  let replayed = 0
  let missing = false
  /** @type {Frame | undefined} */
  let welcome
  let followed = ""
  let stopped = false

  const feed = connect({
    url,
    getToken,
    channels: [ALL],
    ...(cursor === undefined ? {} : { cursor }),
    parse(text) {
      heardAt = Date.now()
      const frame = parseFrame(text)
      if (frame.type === "connection_success") welcome = frame
      if (frame.type === "checkpoint") listener.onCheckpoint()
      return frame
    },
  })
  feed.on("state", takeState)
  feed.on("change", takeChange)
  feed.on("message", takeChange)
  feed.on("derived", listener.onDerived)
  // The page has no rows to load: only what is missing concerns it.
  feed.on("resync", ({ reason }) => {
    if (!["no_cursor", "bulk_load", "truncate", "oversize"].includes(reason)) missing = true
  })
  feed.on("error", ({ code, message, cause }) => {
    if (code === "listener") console.error(cause)
    // A person has all the time there is to sign in again.
    else if (code !== "refused" && code !== "token") listener.onError(message)
  })

  /** @returns {string | Promise<string>} */
  function getToken() {
    const renewal = feed.state.kind === "live"
    if (spent === undefined && !renewal) return token
    const handed = new Promise((resolve) => asking.push(resolve))
    if (renewal) listener.onRenewalWanted()
    return handed
  }

  /** @param {object} frame */
  function takeChange(frame) {
    if (feed.state.kind === "catching_up") replayed++
    listener.onChange(/** @type {Frame} */ (frame))
  }

  /** @param {Feed["state"]} state */
  function takeState(state) {
    if (stopped) return
    // Whoever is asked for another token may take their time: this one may do for the next connection.
    if (state.kind === "authenticating" && spent === undefined)
      for (const resolve of asking.splice(0)) resolve(token)
    switch (state.kind) {
      case "authenticating":
      case "opening":
        // From live at once: nothing was heard for too long, and it may have been dead all the while.
        if (everLive) lostAt ??= heardAt
        if (spent !== undefined) return
        return listener.onStatus(
          lostAt === undefined
            ? { kind: "connecting" }
            : { kind: "offline", since: lostAt, retryAt: Date.now(), reason: "" },
        )
      case "catching_up":
        replayed = 0
        return listener.onStatus({ kind: "catching_up", since: lostAt ?? Date.now() })
      case "live": {
        const back = everLive || missing ? { since: lostAt ?? Date.now(), replayed, missing } : undefined
        everLive = true
        lostAt = undefined
        missing = false
        replayed = 0
        return listener.onStatus({ kind: "live", welcome, back })
      }
      case "waiting":
      case "offline": {
        lostAt ??= Date.now()
        // The library asks for a token again and again; a person is asked once.
        if (spent !== undefined) return
        const { code, reason } = readCause(state.cause)
        if (code === EXPIRED) spent = "expired"
        if (code === REFUSED) spent = "refused"
        if (spent !== undefined) return listener.onStatus({ kind: "token_needed", why: spent })
        const retryAt = Date.now() + state.delayMs
        // What the browser calls a close without a frame says nothing to a person.
        const told = state.kind === "offline" || code >= 4000 ? reason : ""
        return listener.onStatus({ kind: "offline", since: lostAt, retryAt, reason: told })
      }
      case "suspended":
        lostAt ??= Date.now()
        return
      case "closed": {
        const { code, reason } = readCause(state.cause)
        return listener.onStatus(
          code === REFUSED ? { kind: "token_needed", why: "refused" } : { kind: "ended", reason },
        )
      }
    }
  }

  /** The library connects at once when the browser says that there is a network again. */
  const retry = () => void dispatchEvent(new Event("online"))

  return {
    /** Everything up to it was shown. */
    cursor: () => feed.cursor,
    claims: () => readClaims(token),
    /** Whether a token would be taken now, without another connection. */
    wantsToken: () => asking.length > 0 || spent !== undefined,
    /** @param {string} another */
    handToken(another) {
      token = another
      spent = undefined
      for (const resolve of asking.splice(0)) resolve(another)
      if (feed.state.kind !== "live") retry()
    },
    /**
     * Follows one dashboard, instead of the one before.
     * @param {string} channel Empty: none.
     */
    follow(channel) {
      if (channel === followed) return
      if (followed !== "") feed.unsubscribe([followed])
      followed = channel
      // Refused, or unsubscribed before it was live: there is nothing to show then.
      if (channel !== "") feed.subscribe([channel]).catch(() => {})
    },
    retry,
    stop() {
      stopped = true
      feed.close()
    },
  }
}
