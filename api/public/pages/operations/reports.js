// @ts-check
/** The report, asked for again and again while somebody looks at the page. Without a socket: it must not count itself. */

/**
 * @typedef {object} Disconnect
 * @property {"refused" | "closed" | "left" | "cut"} what
 * @property {number | null} code
 * @property {string} reason
 * @property {number} times
 */

/**
 * @typedef {object} Report As docs/OPERATIONS.md has it.
 * @property {"ok" | "degraded"} status
 * @property {string[]} problems
 * @property {string} version
 * @property {string} instance
 * @property {string} at
 * @property {number} uptime_seconds
 * @property {{state: "up" | "down", since_seconds: number, proven_seconds_ago: number | null, error: string | null}} listener
 * @property {{state: "up" | "down", since_seconds: number, lag_seconds: number, cursor: string | null, bell: Bell, error: string | null}} feed
 * @property {{source: "settings" | "jwks", known: number, fetched_seconds_ago: number | null, error: string | null}} keys
 * @property {Connections} connections
 * @property {Record<string, number>} limits_reached
 * @property {{changes: number, deliveries: number, connects: number}} totals
 * @property {{totals: Disconnect[], last: (Disconnect & {first_at: string, last_at: string})[]}} disconnects
 * @property {{pid: number, connections: number}[]} [workers]
 * @property {{name: string, type: string, level: string, problem: string | null, not_captured: string[]}[]} tables
 * @property {{type: string, channel: string, function: string, values: number, computed_seconds_ago: number | null, took_ms: number | null, error: string | null}[]} derived
 */
/** @typedef {{mode: "quiet" | "awake" | "tail", heard: number, skipped: number, polls: number}} Bell */
/** @typedef {{total: number, users: number, by_user: Record<string, number>, channels: number, by_channel: Record<string, number>, lanes: number, replaying: number}} Connections */

/**
 * @typedef {object} Reader
 * @property {(report: Report) => void} onReport
 * @property {(reason: string, retryAt: number) => void} onFailed No report came; it is tried again.
 * @property {(status: 401 | 403, reason: string) => void} onRefused The token is of no use. Nothing is asked any more.
 */

/** The users and channels that are named. */
const TOP = 10
const EACH_MS = 1_000
/** A relay that takes long to answer is asked less often: it rests for this many times what it took, up to a bound. */
const REST = 4
const LAST_EACH_MS = 4_000
const TIMEOUT_MS = 10_000
const LAST_RETRY_MS = 10_000

/** @param {Reader} reader */
export function createReports({ onReport, onFailed, onRefused }) {
  let token = ""
  let failures = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer
  /** The question that waits for its answer. @type {AbortController | undefined} */
  let asking

  async function ask() {
    clearTimeout(timer)
    if (asking !== undefined || token === "" || document.hidden) return
    const question = new AbortController()
    const deadline = setTimeout(() => question.abort(), TIMEOUT_MS)
    asking = question
    const askedAt = performance.now()
    /** @type {Answer} */
    const answer = await askWith(token, question.signal)
    clearTimeout(deadline)
    // Another token came meanwhile, or none is left.
    if (asking !== question) return
    asking = undefined
    take(answer, performance.now() - askedAt)
  }

  /**
   * @param {Answer} answer
   * @param {number} tookMs
   */
  function take(answer, tookMs) {
    switch (answer.kind) {
      case "report":
        failures = 0
        again(Math.min(LAST_EACH_MS, Math.max(EACH_MS, tookMs * REST)))
        return onReport(answer.report)
      case "refused":
        token = ""
        return onRefused(answer.status, answer.reason)
      case "failed": {
        const delay = Math.min(LAST_RETRY_MS, EACH_MS * 2 ** failures++)
        again(delay)
        return onFailed(answer.reason, Date.now() + delay)
      }
    }
  }

  /** @param {number} delayMs */
  function again(delayMs) {
    timer = setTimeout(ask, delayMs)
  }

  function stop() {
    token = ""
    clearTimeout(timer)
    asking?.abort()
    asking = undefined
  }

  document.addEventListener("visibilitychange", ask)
  addEventListener("online", ask)

  return {
    /** @param {string} withToken */
    start(withToken) {
      stop()
      token = withToken
      failures = 0
      void ask()
    },
    stop,
    retryNow: ask,
  }
}

/** @typedef {{kind: "report", report: Report} | {kind: "refused", status: 401 | 403, reason: string} | {kind: "failed", reason: string}} Answer */

/**
 * @param {string} token
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
async function askWith(token, signal) {
  try {
    const response = await fetch(`api/utils/websocket/health/?top=${TOP}`, {
      headers: { authorization: `Bearer ${token}` },
      cache: "no-store",
      signal,
    })
    const { status } = response
    /** What a proxy says in the relay's place is no JSON. */
    const json = await response.json().catch(() => ({}))
    if (status === 401 || status === 403) return { kind: "refused", status, reason: String(json.error) }
    if (status === 200 && json.totals !== undefined) return { kind: "report", report: json }
    return { kind: "failed", reason: json.error ?? `it answers with status ${status}` }
  } catch {
    return {
      kind: "failed",
      reason: signal.aborted ? `there is no answer within ${TIMEOUT_MS / 1_000} s` : "",
    }
  }
}
