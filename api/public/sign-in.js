// @ts-check
/** Where tokens come in: pasted into a form, or with a link. */

import { byId, inputById, write } from "./element.js"
import { findToken, readClaims } from "./token.js"

const NO_TOKEN = "This is not a token: a token is three parts joined by dots."

/** @param {(token: string) => void} onToken */
export function createSignIn(onToken) {
  const field = createField("sign-in-form", "token", "sign-in-error")
  const renewal = createField("renew-form", "renew-token", "renew-error")

  /**
   * @param {string} form
   * @param {string} input
   * @param {string} error
   */
  function createField(form, input, error) {
    const element = inputById(input)
    /** @param {string} text */
    const complain = (text) => {
      write(byId(error), text)
      element.setAttribute("aria-invalid", String(text !== ""))
      if (text !== "") element.focus()
    }
    byId(form).addEventListener("submit", (event) => {
      event.preventDefault()
      const token = findToken(element.value)
      if (readClaims(token) === undefined) return complain(NO_TOKEN)
      complain("")
      element.value = ""
      onToken(token)
    })
    return { element, complain }
  }

  /** A link's token does not stay in the address, nor in the history. */
  function fromAddress() {
    if (!location.hash.includes("token=")) return undefined
    const token = findToken(location.hash)
    history.replaceState(null, "", location.pathname + location.search)
    return token
  }

  /** @param {string | undefined} token */
  function take(token) {
    if (token === undefined) return
    if (readClaims(token) === undefined) show(NO_TOKEN)
    else onToken(token)
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
      byId("sign-in").hidden = true
      byId("renew").hidden = true
    },
    /** @param {string} until */
    showRenewal(until) {
      write(byId("renew-until"), until)
      byId("renew").hidden = false
    },
    hideRenewal() {
      if (byId("renew").contains(document.activeElement)) byId("main").focus()
      byId("renew").hidden = true
      renewal.complain("")
    },
    /** With the link that brought the reader here, or as the tab remembers. @param {string | null} remembered */
    start(remembered) {
      const token = fromAddress() ?? remembered
      if (token === null) show("")
      else take(token)
    },
  }
}
