// @ts-check
/** Tokens as a person hands them in, and what one says of its bearer. The relay checks it; the page only reads it. */

/**
 * @typedef {object} Claims
 * @property {string} user
 * @property {number} expiresAt Milliseconds since 1970.
 * @property {string[] | undefined} committees What it is narrowed to; undefined: not at all.
 * @property {string[] | undefined} elections
 * @property {string[] | undefined} channels
 */

const JWT = /^[\w-]+\.[\w-]+\.[\w-]+$/

/**
 * A token, or a link that carries one.
 * @param {string} text
 */
export function findToken(text) {
  const found = /[#&?]token=([^&\s]+)/.exec(text)
  return (found?.[1] ?? text).trim()
}

/**
 * @param {string} token
 * @returns {Claims | undefined} undefined: this is no token.
 */
export function readClaims(token) {
  if (!JWT.test(token)) return undefined
  try {
    const base64 = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/")
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))
    const claims = JSON.parse(new TextDecoder().decode(bytes))
    return {
      user: String(claims.sub ?? claims.user_id ?? ""),
      expiresAt: Number(claims.exp) * 1_000,
      committees: listOf(claims.committees),
      elections: listOf(claims.elections),
      channels: listOf(claims.channels),
    }
  } catch {
    return undefined
  }
}

/** The relay refuses a claim that is anything else. @param {unknown} claim */
const listOf = (claim) => (Array.isArray(claim) ? claim.map(String) : undefined)

/**
 * Whether the numbers of a dashboard are for the bearer: as the relay decides, which closes the connection of whoever names a
 * channel that is not allowed.
 * @param {Claims} claims
 * @param {string} election Empty: of all elections together.
 */
export function mayFollow({ committees, elections, channels }, election) {
  const channel = dashboardOf(election)
  return (
    committees === undefined &&
    (elections === undefined || elections.includes(election)) &&
    (channels === undefined || channels.includes(channel))
  )
}

/** @param {string} election Empty: of all elections together. */
export const dashboardOf = (election) => (election === "" ? "dashboard" : `dashboard:${election}`)
