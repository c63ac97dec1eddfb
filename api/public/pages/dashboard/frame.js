// @ts-check
/** Frames as the relay sent them: numbers that a double cannot hold keep the text that PostgreSQL wrote. */

/**
 * @typedef {object} Frame A message of the relay; which fields there are depends on the type.
 * @property {string} type
 * @property {string} [action]
 * @property {string} [id]
 * @property {string} [at]
 * @property {string} [table]
 * @property {Record<string, unknown>} [key]
 * @property {Record<string, unknown> | null} [data] Null if it is oversize.
 * @property {boolean} [oversize]
 * @property {string[]} [changed]
 * @property {Record<string, unknown>} [before]
 * @property {string[]} [channels]
 * @property {string} [channel]
 * @property {unknown} [payload]
 * @property {string} [operation]
 * @property {number} [rows]
 * @property {string} [partition]
 * @property {{id: string, last: boolean}} [tx]
 * @property {string} [cursor]
 * @property {string} [user]
 * @property {boolean} [recovered]
 * @property {number} [replayed]
 * @property {number} [heartbeat_seconds]
 * @property {number} [expires_in]
 * @property {string} [code]
 * @property {string} [message]
 */

const rawJSON = /** @type {{rawJSON?: (text: string) => unknown}} */ (JSON).rawJSON

/** A number as it was written. */
export class Exact {
  /** @param {string} text */
  constructor(text) {
    this.text = text
  }

  toString() {
    return this.text
  }

  toJSON() {
    return rawJSON === undefined ? this.text : rawJSON(this.text)
  }
}

/** Digits that a double may round, or zeros at the end that it forgets. */
const DELICATE = /[\d.]{16}|\.\d*0\b/

/**
 * Browsers that do not tell the source give the number as parsed.
 * @param {string} _name
 * @param {unknown} value
 * @param {{source?: string}} [context]
 */
function keepExact(_name, value, context) {
  const source = context?.source
  return typeof value !== "number" || source === undefined || source === String(value)
    ? value
    : new Exact(source)
}

/**
 * @param {string} text
 * @returns {Frame}
 */
export function parseFrame(text) {
  return DELICATE.test(text) ? JSON.parse(text, keepExact) : JSON.parse(text)
}

/**
 * A value as text, whole.
 * @param {unknown} value
 */
export function wholeText(value) {
  if (value === undefined) return "null"
  if (typeof value === "string" && value !== "") return value
  return value instanceof Exact ? value.text : JSON.stringify(value)
}
