// @ts-check
/** Trends: what each report says of the present, and how fast the totals have grown since the one before. */

/** @typedef {import("./reports.js").Report} Report */
/** @typedef {"connections" | "lag" | "changes" | "deliveries" | "connects" | "closes"} Name */
/** Null: nobody knows. @typedef {Record<Name, number | null>} Values */
/** @typedef {Values & {at: number}} Sample */

/** How far back it goes. Milliseconds. */
export const SPAN_MS = 120_000
/** What lies further apart is not joined by a line. Milliseconds. */
export const GAP_MS = 6_000
/** A number that is to be read is a mean of so long. Milliseconds. */
const SETTLE_MS = 5_000

/** @type {readonly ("changes" | "deliveries" | "connects" | "closes")[]} */
const RATES = ["changes", "deliveries", "connects", "closes"]

/** Connections that have ended, since the start. @param {Report} report */
export const closesOf = ({ disconnects }) =>
  disconnects.totals.reduce((sum, { what, times }) => (what === "refused" ? sum : sum + times), 0)

/** Upgrades that were refused. @param {Report} report */
export const refusalsOf = ({ disconnects }) =>
  disconnects.totals.reduce((sum, { what, times }) => (what === "refused" ? sum + times : sum), 0)

/** @param {Report} report */
const totalsOf = (report) => ({ ...report.totals, closes: closesOf(report) })

/** Totals of the same processes grow; those of others say nothing. @param {Report} report */
const counterOf = ({ instance, workers = [] }) =>
  [instance, ...workers.map(({ pid }) => pid).sort((a, b) => a - b)].join()

export function createTrend() {
  /** The oldest first. @type {Sample[]} */
  let samples = []
  /** @type {Report | undefined} */
  let before

  /** @param {Report} report */
  function ratesOf(report) {
    const seconds = before === undefined ? 0 : report.uptime_seconds - before.uptime_seconds
    if (before === undefined || seconds <= 0 || counterOf(before) !== counterOf(report))
      return { changes: null, deliveries: null, connects: null, closes: null }
    const [now, then] = [totalsOf(report), totalsOf(before)]
    /** @param {(typeof RATES)[number]} name */
    const rate = (name) => Math.max(0, now[name] - then[name]) / seconds
    return {
      changes: rate("changes"),
      deliveries: rate("deliveries"),
      connects: rate("connects"),
      closes: rate("closes"),
    }
  }

  return {
    /** @param {Report} report */
    add(report) {
      const at = performance.now()
      samples = samples.filter((sample) => sample.at > at - SPAN_MS - GAP_MS)
      samples.push({
        at,
        connections: report.connections.total,
        lag: report.feed.lag_seconds,
        ...ratesOf(report),
      })
      before = report
    },
    clear() {
      samples = []
      before = undefined
    },
    samples: () => samples,
    /** What to show as the present value. @param {Name} name */
    now(name) {
      const last = samples.at(-1)
      if (last === undefined || !RATES.some((rate) => rate === name)) return last?.[name] ?? null
      return meanOf(samples, name, last.at - SETTLE_MS, last.at)
    },
  }
}

/**
 * @param {readonly Sample[]} samples
 * @param {Name} name
 * @param {number} after
 * @param {number} until
 * @returns {number | null} null: none is known of that time.
 */
export function meanOf(samples, name, after, until) {
  const known = samples.flatMap(({ at, [name]: value }) =>
    at > after && at <= until && value !== null ? [value] : [],
  )
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length
}
