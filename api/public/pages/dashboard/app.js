// @ts-check
/** The page, put together: who is signed in, the board, and the stream. */

import { showCommands } from "../shared/commands.js"
import { byId, inputById, write } from "../shared/element.js"
import { counted, direction, longClock, minuteOf, number, rate, untilOf } from "../shared/locale.js"
import { createRenewal, createSignIn } from "../shared/sign-in.js"
import { dashboardOf, mayFollow } from "../shared/token.js"
import { createBoard } from "./board.js"
import { createKinds } from "./kinds.js"
import { createPace } from "./pace.js"
import { createSession } from "./session.js"
import { backText, createStatus } from "./status.js"
import { createStream, KEPT, SHOWN } from "./stream.js"

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {import("./session.js").Status} Status */

const CHANNELS_SHOWN = 4
/** A token that ends within this time is worth a word. */
const ENDING_MS = 900_000
/** The numbers come with the connection, or there are none: so long the stream waits, rather than jump. */
const SETTLE_MS = 600

const pace = createPace()
const status = createStatus()
const kinds = createKinds(byId("types"), applyFilter)
const stream = createStream(byId("changes"), showStream)
const board = createBoard(followBoard)
const signIn = createSignIn(takeToken)
const renewal = createRenewal(takeToken)
/** @type {Promise<string> | undefined} */
let address
/** @type {ReturnType<typeof createSession> | undefined} */
let session
/** The chosen types; empty: all. @type {ReadonlySet<string>} */
let chosen = new Set()
/** Also of changes that were cleared away. */
let everSeen = false
let renewalWanted = false
/** The relay's greeting. @type {Frame | undefined} */
let welcome

/**
 * @param {string} token
 * @param {import("../shared/token.js").Claims} claims
 */
async function takeToken(token, claims) {
  signIn.hide()
  renewal.hide()
  renewalWanted = false
  const same = session?.claims()?.user === claims.user
  if (session !== undefined && same && session.wantsToken()) {
    session.handToken(token)
    showSession()
    return
  }
  const cursor = same ? session?.cursor() : undefined
  if (!same) startAfresh()
  session?.stop()
  session = undefined
  status.show({ kind: "connecting" })
  try {
    address ??= findAddress()
    const url = await address
    // Meanwhile another may have been handed in.
    if (session === undefined && signIn.kept() === token)
      session = createSession(url, token, cursor, listener)
  } catch {
    address = undefined
    signIn.show("The relay does not answer. Is it running?")
    status.show({ kind: "ended", reason: "" })
  }
  followBoard()
}

const listener = {
  onStatus: takeStatus,
  /** @param {Frame} frame */
  onChange(frame) {
    everSeen = true
    pace.add()
    kinds.add(frame.type)
    stream.addChange(frame)
  },
  /** @param {import("./session.js").Derived} message */
  onDerived(message) {
    if (board.take(message)) settle()
  },
  onCheckpoint: stream.closeTransactions,
  /** @param {string} text */
  onError: (text) => stream.addNote(text, "error"),
  onRenewalWanted() {
    renewalWanted = true
    tick()
  },
}

/** @param {Status} now */
function takeStatus(now) {
  status.show(now)
  byId("sign-out").hidden = status.signedOut()
  switch (now.kind) {
    case "live":
      if (now.back !== undefined) stream.addNote(...backText(now.back))
      welcome = now.welcome
      showSession()
      setTimeout(settle, SETTLE_MS)
      return
    case "offline":
      return stream.closeTransactions()
    case "token_needed":
      return askForToken(
        now.why === "expired"
          ? "The token has expired. Paste another, and the page goes on where it stopped."
          : "The relay does not accept this token: it may be for another relay, or damaged.",
      )
    case "ended":
      return askForToken(`The relay ended the connection: ${now.reason}.`)
  }
}

/** @param {string} why Empty: there is nothing to say. */
function askForToken(why) {
  signIn.forget()
  stream.closeTransactions()
  write(byId("session"), "")
  renewal.hide()
  signIn.show(why)
}

/** What is there to show is shown. */
function settle() {
  if (session !== undefined) byId("live").hidden = false
}

function startAfresh() {
  stream.clear()
  kinds.clear()
  board.clear()
  chosen = new Set()
  byId("live").hidden = true
}

function showSession() {
  const claims = session?.claims()
  const channels = welcome?.channels ?? []
  const more = channels.length - CHANNELS_SHOWN
  const parts = [
    `User ${claims?.user}`,
    `${channels.slice(0, CHANNELS_SHOWN).join(", ")}${more > 0 ? ` and ${number(more)} more` : ""}`,
    claims === undefined ? "" : `token until ${untilOf(new Date(claims.expiresAt))}`,
  ]
  write(byId("session"), parts.filter((part) => part !== "").join(" · "))
}

/** The numbers of what the board looks at, as far as the token allows. */
function followBoard() {
  const claims = session?.claims()
  if (session === undefined || claims === undefined) return
  const election = board.wanted().find((wanted) => mayFollow(claims, wanted))
  session.follow(election === undefined ? "" : dashboardOf(election))
}

/** @param {ReadonlySet<string>} [types] */
function applyFilter(types = chosen) {
  chosen = types
  stream.filter(inputById("filter").value, chosen)
}

/** Each time that the list was touched. */
function showStream() {
  write(byId("rate"), rate(pace.rate()))
  kinds.show()
  const { paused, waiting, shown, full, forgot, filtered } = stream.status()
  byId("waiting").hidden = !paused
  write(
    byId("waiting"),
    waiting === 0 ? "Paused. Nothing new yet." : `Paused. ${counted(waiting, "new change")} waiting.`,
  )
  byId("empty").hidden = shown > 0
  write(
    byId("empty-title"),
    filtered && kinds.total() > 0
      ? `None of ${forgot ? `the last ${number(KEPT)}` : "the"} changes matches the filter.`
      : `Waiting for the ${everSeen ? "next" : "first"} change.`,
  )
  byId("empty-hint").hidden = everSeen
  write(
    byId("kept"),
    full ? `The newest ${number(SHOWN)} are shown; the filter looks through the last ${number(KEPT)}.` : "",
  )
}

function tick() {
  write(byId("rate"), rate(pace.rate()))
  byId("pace").setAttribute("d", pace.bars())
  status.tick()
  const left = (session?.claims()?.expiresAt ?? Number.POSITIVE_INFINITY) - Date.now()
  if (renewalWanted && left < ENDING_MS)
    renewal.show(`The token ends at ${minuteOf(Date.now() + left)}. Paste another to stay connected.`)
}

async function findAddress() {
  const response = await fetch("page.json")
  if (!response.ok) throw new Error(`page.json: ${response.status}`)
  const { wsPath } = await response.json()
  return new URL(wsPath, location.origin).href
}

byId("sign-out").addEventListener("click", () => {
  session?.stop()
  session = undefined
  startAfresh()
  status.show({ kind: "ended", reason: "" })
  byId("sign-out").hidden = true
  askForToken("")
})
byId("retry").addEventListener("click", () => session?.retry())
byId("pause").addEventListener("click", () => {
  const paused = !stream.status().paused
  write(byId("pause"), paused ? "Resume" : "Pause")
  document.documentElement.toggleAttribute("data-paused", paused)
  stream.pause(paused)
})
byId("clear").addEventListener("click", () => {
  kinds.reset()
  stream.clear()
})
inputById("filter").addEventListener("input", () => applyFilter())

document.documentElement.dir = direction()
document.documentElement.toggleAttribute("data-long-clock", longClock)
showStream()
tick()
setInterval(tick, 1_000)
status.show({ kind: "ended", reason: "" })
void showCommands()
signIn.start()
