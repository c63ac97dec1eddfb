// @ts-check
/** The list of changes, newest on top. However many come at once, the page is touched a few times a second. */

import { createRow, searchableText, showTransaction } from "./row.js"

/** @typedef {import("./row.js").Entry} Entry */
/** @typedef {import("./frame.js").Frame} Frame */

/** Rows in the page. */
export const SHOWN = 300
/** Changes in memory, for the filter. */
export const KEPT = 5_000
/** More new rows than this at once are not lit up one by one. */
const LIT = 12
/** After touching the page it rests so many times as long as that took: in a flood the socket needs time, too. */
const REST = 10
const REST_MAX_MS = 500

/**
 * @param {HTMLElement} list
 * @param {() => void} onFlush Told after the page was touched.
 */
export function createStream(list, onFlush) {
  /** @type {Entry[]} */
  let kept = []
  /** Arrived, and not shown yet. @type {Entry[]} */
  let waiting = []
  let waitingCount = 0
  /** What is in the page, oldest first. @type {Entry[]} */
  let shown = []
  let paused = false
  let stale = false
  let scheduled = false
  let restUntil = 0
  let text = ""
  /** Empty: all. @type {ReadonlySet<string>} */
  let types = new Set()
  /** Transactions of which more may come. @type {Map<string, {size: number, newest: Entry}>} */
  const openTxs = new Map()

  /** @param {Entry} entry */
  function push(entry) {
    waiting.push(entry)
    if (entry.frame !== undefined) waitingCount++
    // Frames of the browser may be far apart: a hidden tab has none.
    if (waiting.length >= 2 * KEPT) waiting = waiting.slice(-KEPT)
    schedule()
  }

  function schedule() {
    if (scheduled) return
    scheduled = true
    const rest = restUntil - performance.now()
    if (rest > 0) setTimeout(() => requestAnimationFrame(flush), rest)
    else requestAnimationFrame(flush)
  }

  /** @param {Entry} entry */
  function matches(entry) {
    if (entry.frame === undefined) return true
    if (types.size > 0 && !types.has(entry.frame.type)) return false
    return text === "" || searchableText(entry).includes(text)
  }

  function flush() {
    scheduled = false
    const begun = performance.now()
    /** @type {Entry[]} */
    let fresh = []
    const anew = stale
    if (!paused) {
      fresh = waiting
      waiting = []
      waitingCount = 0
      if (fresh.length > 0) kept = [...kept, ...fresh].slice(-KEPT)
    }
    stale = false
    if (anew) {
      for (const entry of shown) entry.element = undefined
      shown = []
      list.replaceChildren()
      fresh = kept
    }
    if (fresh.length > 0) show(fresh.filter(matches), !anew)
    onFlush()
    const ended = performance.now()
    restUntil = ended + Math.min(REST_MAX_MS, REST * (ended - begun))
  }

  /**
   * @param {Entry[]} fresh
   * @param {boolean} arrived Just now, and not found by a filter.
   */
  function show(fresh, arrived) {
    const added = fresh.slice(-SHOWN)
    const lit = arrived && added.length <= LIT
    const fragment = document.createDocumentFragment()
    for (const entry of added) {
      const row = createRow(entry)
      if (lit) row.classList.add("lit")
      join(entry, shown.at(-1))
      shown.push(entry)
      fragment.prepend(row)
    }
    list.prepend(fragment)
    for (const entry of shown.splice(0, Math.max(0, shown.length - SHOWN))) {
      entry.element?.remove()
      entry.element = undefined
    }
  }

  /**
   * Marks two neighbours of one transaction.
   * @param {Entry} upper
   * @param {Entry | undefined} lower
   */
  function join(upper, lower) {
    const tx = upper.frame?.tx?.id
    if (tx === undefined || tx !== lower?.frame?.tx?.id) return
    upper.element?.classList.add("joins-below")
    lower.element?.classList.add("joins-above")
  }

  /** @param {{size: number, newest: Entry}} tx */
  function closeTx({ size, newest }) {
    newest.txSize = size
    showTransaction(newest)
  }

  return {
    /**
     * @param {Frame} frame
     */
    addChange(frame) {
      const at = frame.at === undefined ? Date.now() : Date.parse(frame.at)
      /** @type {Entry} */
      const entry = { frame, note: "", tone: "", at, txSize: 0, element: undefined, searchable: undefined }
      if (frame.tx !== undefined) {
        const tx = { size: (openTxs.get(frame.tx.id)?.size ?? 0) + 1, newest: entry }
        openTxs.set(frame.tx.id, tx)
        if (frame.tx.last) {
          openTxs.delete(frame.tx.id)
          closeTx(tx)
        }
      }
      push(entry)
    },
    /**
     * @param {string} note
     * @param {Entry["tone"]} tone
     */
    addNote(note, tone = "") {
      const at = Date.now()
      push({ frame: undefined, note, tone, at, txSize: 0, element: undefined, searchable: undefined })
    },
    /** No transaction is halfway any more. */
    closeTransactions() {
      for (const tx of openTxs.values()) closeTx(tx)
      openTxs.clear()
    },
    /**
     * @param {string} filterText
     * @param {ReadonlySet<string>} filterTypes
     */
    filter(filterText, filterTypes) {
      text = filterText.trim().toLowerCase()
      types = filterTypes
      stale = true
      schedule()
    },
    /** @param {boolean} to */
    pause(to) {
      paused = to
      schedule()
    },
    clear() {
      kept = []
      waiting = []
      waitingCount = 0
      stale = true
      schedule()
    },
    /** What there is to say about the list. */
    status: () => ({
      paused,
      waiting: waitingCount,
      shown: shown.length,
      full: shown.length === SHOWN,
      forgot: kept.length === KEPT,
      filtered: text !== "" || types.size > 0,
    }),
  }
}
