// @ts-check
/** What the relay has derived, as far as the page knows how to show it: a database may derive other things under the same names. */

/** @typedef {import("./session.js").Derived} Derived */

/**
 * @typedef {object} Candidate
 * @property {number} candidate_id
 * @property {string} name
 * @property {number} votes
 */

/**
 * @typedef {object} Results Of an election, the most votes first.
 * @property {number} election_id
 * @property {string} election
 * @property {number} votes
 * @property {number} committees_reported
 * @property {number} committees
 * @property {Candidate[]} candidates
 */

/**
 * @typedef {object} OverTime How many came in each step.
 * @property {string} from
 * @property {number} step_seconds
 * @property {number[]} present
 */

/**
 * @typedef {object} Statistics Of an election, or of all together.
 * @property {{id: number, name: string}[]} committees
 * @property {{total: number, by_status: Record<string, number>}} guarantees
 * @property {{present: number, by_committee: Record<string, number>, over_time: OverTime | null}} attendance
 * @property {Counting} counting
 */

/**
 * @typedef {object} Counting
 * @property {number} entries
 * @property {number} verified
 * @property {number} votes
 * @property {number} committees_reported
 * @property {number} committees
 * @property {Record<string, {entries: number, verified: number, votes: number}>} by_committee
 */

/**
 * @param {Derived} message
 * @returns {Results | undefined}
 */
export function readResults({ type, action, data }) {
  const results = /** @type {Partial<Results> | null} */ (data)
  if (type !== "voting_update" || action !== "results" || !Array.isArray(results?.candidates))
    return undefined
  return /** @type {Results} */ (results)
}

/**
 * @param {Derived} message
 * @returns {Statistics | undefined}
 */
export function readStatistics({ type, data }) {
  const statistics = /** @type {Partial<Statistics> | null} */ (data)
  if (type !== "dashboard_update" || !Array.isArray(statistics?.committees)) return undefined
  const whole = statistics.guarantees && statistics.attendance && statistics.counting?.by_committee
  return whole ? /** @type {Statistics} */ (statistics) : undefined
}
