// @ts-check
/** The socket: opened, watched, opened again until the relay says that it is of no use. */

import { parseFrame } from "./frame.js"

/** @typedef {import("./frame.js").Frame} Frame */

/**
 * @typedef {object} Listener
 * @property {(frame: Frame) => void} onFrame A change, a message or an error.
 * @property {() => void} onCheckpoint No transaction is halfway any more.
 * @property {(frame: Frame, lostAt: number | undefined, gap: boolean) => void} onLive
 *   `lostAt`: up to when the last connection was surely alive. `gap`: whether changes may be missing since.
 * @property {(lostAt: number, retryAt: number, reason: string) => void} onLost
 * @property {(code: number, reason: string) => void} onRefused
 */

export const TOKEN_EXPIRED = 4005
const FIRST_DELAY_MS = 500
const LAST_DELAY_MS = 20_000
const CONNECT_TIMEOUT_MS = 10_000
/** Beyond the relay's own heartbeat. */
const SILENCE_MS = 10_000
/** A connection that lived this long was no failure. */
const STEADY_MS = 5_000
/** A cursor may list transactions in flight; proxies and the relay limit the length of a URL. */
const MAX_CURSOR = 4_000

/** @param {Listener} listener */
export function createConnection(listener) {
  let token = ""
  /** @type {URL | undefined} */
  let address
  /** @type {WebSocket | undefined} */
  let socket
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let retry
  let attempt = 0
  let wanted = false
  let opening = false
  let live = false
  let liveAt = 0
  let heardAt = 0
  let silenceLimit = CONNECT_TIMEOUT_MS
  /** @type {number | undefined} */
  let lostAt
  /** @type {string | undefined} */
  let cursor
  /**
   * The changes since the cursor, each with the socket that it last came on: a replay repeats them, and so does another
   * relay that is behind.
   * @type {Map<string, WebSocket | undefined>}
   */
  const sinceCursor = new Map()

  async function open() {
    clearTimeout(retry)
    retry = undefined
    if (opening || socket !== undefined || !wanted) return
    opening = true
    try {
      address ??= await findAddress()
    } catch {
      return wanted ? lost(1006, "", false) : undefined
    } finally {
      opening = false
    }
    if (!wanted) return
    const url = new URL(address)
    if (cursor !== undefined && cursor.length <= MAX_CURSOR) url.searchParams.set("cursor", cursor)
    heardAt = Date.now()
    silenceLimit = CONNECT_TIMEOUT_MS
    const made = new WebSocket(url, ["commitcast.v1", `bearer.${token}`])
    socket = made
    made.onmessage = ({ data }) => {
      if (socket === made) receive(String(data))
    }
    made.onclose = ({ code, reason, wasClean }) => {
      if (socket === made) lost(code, reason, wasClean)
    }
  }

  /** @param {string} text */
  function receive(text) {
    heardAt = Date.now()
    const frame = parseFrame(text)
    switch (frame.type) {
      case "ping":
        return socket?.send('{"type":"pong"}')
      case "pong":
        return
      case "checkpoint":
        moveTo(frame.cursor)
        return listener.onCheckpoint()
      case "connection_success":
        return welcome(frame)
    }
    if (frame.id !== undefined) {
      const again = sinceCursor.has(frame.id)
      sinceCursor.set(frame.id, socket)
      if (again) return
    }
    listener.onFrame(frame)
  }

  /** @param {Frame} frame */
  function welcome(frame) {
    const gap = cursor !== undefined && frame.recovered !== true
    live = true
    liveAt = heardAt
    silenceLimit = (frame.heartbeat_seconds ?? 25) * 1_000 + SILENCE_MS
    if (frame.recovered !== true) moveTo(frame.cursor)
    const since = lostAt
    lostAt = undefined
    listener.onLive(frame, since, gap)
  }

  /** @param {string | undefined} to */
  function moveTo(to) {
    cursor = to
    for (const [id, its] of sinceCursor) if (its === socket || to === undefined) sinceCursor.delete(id)
  }

  /**
   * @param {number} code
   * @param {string} reason
   * @param {boolean} clean
   */
  function lost(code, reason, clean) {
    socket = undefined
    if (live && Date.now() - liveAt > STEADY_MS) attempt = 0
    // What died unnoticed may have been dead since it was last heard.
    if (live) lostAt = clean ? Date.now() : heardAt
    live = false
    lostAt ??= Date.now()
    if (code === TOKEN_EXPIRED || (code >= 4500 && code < 5000)) {
      wanted = false
      return listener.onRefused(code, reason)
    }
    const delay = Math.random() * Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt++)
    retry = setTimeout(open, delay)
    listener.onLost(lostAt, Date.now() + delay, reason)
  }

  function checkSilence() {
    if (socket === undefined || Date.now() - heardAt <= silenceLimit) return
    const dead = socket
    lost(1006, "", false)
    dead.close()
  }

  function wake() {
    checkSilence()
    if (wanted && retry !== undefined) void open()
  }

  setInterval(checkSilence, 1_000)
  addEventListener("online", wake)
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) wake()
  })

  return {
    /** @param {string} withToken */
    start(withToken) {
      if (live) lostAt = Date.now()
      this.stop()
      token = withToken
      wanted = true
      attempt = 0
      void open()
    },
    stop() {
      wanted = false
      live = false
      clearTimeout(retry)
      retry = undefined
      const left = socket
      socket = undefined
      left?.close(1000)
    },
    /** Forgets the position, so that the next connection starts afresh. */
    forget() {
      lostAt = undefined
      moveTo(undefined)
    },
    retryNow: wake,
  }
}

async function findAddress() {
  const response = await fetch("page.json")
  if (!response.ok) throw new Error(`page.json: ${response.status}`)
  const { wsPath } = await response.json()
  const url = new URL(location.origin)
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:"
  url.pathname = wsPath
  return url
}
