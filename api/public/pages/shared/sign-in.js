// @ts-check
/** Where tokens come in: pasted into a form, or with a link. The tab keeps the last, for both pages. */

import { byId, inputById, write } from "./element.js"
import { findToken, readClaims } from "./token.js"

/** @typedef {(token: string, claims: import("./token.js").Claims) => void} OnToken */

const KEPT = "commitcast.token"
const NO_TOKEN = "This is not a token: a token is three parts joined by dots."

/** @param {OnToken} onToken */
export function createSignIn(onToken) {
  const field = createField("sign-in-form", "token", "sign-in-error", onToken)

  /** A link's token does not stay in the address, nor in the history. */
  function fromAddress() {
    if (!location.hash.includes("token=")) return undefined
    const token = findToken(location.hash)
    history.replaceState(null, "", location.pathname + location.search)
    return token
  }

  /** @param {string | undefined} token */
  function take(token) {
    if (token !== undefined && !hand(token, onToken)) show(NO_TOKEN)
  }

  /** @param {string} error Empty: none. */
  function show(error) {
    byId("sign-in").hidden = false
    field.complain(error)
    field.element.focus()
  }

  addEventListener("hashchange", () => take(fromAddress()))

  return {
    show,
    hide() {
      leave("sign-in")
      field.complain("")
    },
    kept: () => sessionStorage.getItem(KEPT),
    forget: () => sessionStorage.removeItem(KEPT),
    /** With the link that brought the reader here, or as the tab remembers. */
    start() {
      const token = fromAddress() ?? sessionStorage.getItem(KEPT)
      if (token === null) show("")
      else take(token)
    },
  }
}

/** For whoever is signed in and has a token that ends. @param {OnToken} onToken */
export function createRenewal(onToken) {
  const field = createField("renew-form", "renew-token", "renew-error", onToken)
  return {
    /** @param {string} until */
    show(until) {
      write(byId("renew-until"), until)
      byId("renew").hidden = false
    },
    hide() {
      leave("renew")
      field.complain("")
    },
  }
}

/**
 * @param {string} token
 * @param {OnToken} onToken
 * @returns {boolean} Whether it is one.
 */
function hand(token, onToken) {
  const claims = readClaims(token)
  if (claims === undefined) return false
  sessionStorage.setItem(KEPT, token)
  onToken(token, claims)
  return true
}

/**
 * @param {string} form
 * @param {string} input
 * @param {string} error
 * @param {OnToken} onToken
 */
function createField(form, input, error, onToken) {
  const element = inputById(input)
  /** @param {string} text */
  const complain = (text) => {
    write(byId(error), text)
    element.setAttribute("aria-invalid", String(text !== ""))
    if (text !== "") element.focus()
  }
  byId(form).addEventListener("submit", (event) => {
    event.preventDefault()
    if (!hand(findToken(element.value), onToken)) return complain(NO_TOKEN)
    element.value = ""
  })
  return { element, complain }
}

/** Whoever was in it goes on with what comes in its place. @param {string} id */
function leave(id) {
  const section = byId(id)
  if (section.contains(document.activeElement)) byId("main").focus()
  section.hidden = true
}
