/**
 * The relay's address, and that of one connection. Made of text alone: the URL of React Native can do little more than
 * be read.
 */

/** Proxies take a line of 8 KB and often less, and the relay 16 KiB of it with all headers, the token's too. */
const LONGEST_URL = 4_000
/** What the library says in a query, so that the caller's URL does not. */
const OURS = /^(channels|where|types|actions|cursor)=/

interface Here {
  URL?: new (url: string, base?: string) => { href: string }
  location?: { href: string }
}

/**
 * Takes http for ws, and an empty path for /ws. In a page it may be relative.
 * @throws TypeError if it is no address.
 */
export function relayAddress(text: string): string {
  const here = globalThis as Here
  const absolute = /^\w+:/.test(text)
  // Finds what is wrong with it, and what a relative one stands for.
  const read = here.URL && new here.URL(text, here.location?.href).href
  const [, scheme, host, path, query = ""] =
    /^(wss?|https?):\/\/([^/?#]+)([^?#]*)(\?[^#]*)?/i.exec((absolute ? undefined : read) ?? text) ?? []
  if (scheme === undefined)
    throw new TypeError(`no address of a relay: begin with wss:// or https://: ${text}`)
  return `${scheme.toLowerCase().replace("http", "ws")}://${host}${path === "" || path === "/" ? "/ws" : path}${query}`
}

/** The same address for a plain request. */
export const httpAddress = (address: string): string => address.replace(/^ws/, "http")

/** @returns undefined if it would be too long, or no URL can say it. */
export function addressWith(
  address: string,
  parameters: Record<string, string | undefined>,
): string | undefined {
  const [path = "", query = ""] = address.split("?")
  const said = query.split("&").filter((part) => part !== "" && !OURS.test(part))
  try {
    for (const [name, value] of Object.entries(parameters))
      if (value !== undefined) said.push(`${name}=${encodeURIComponent(value)}`)
  } catch {
    // Half of a surrogate pair.
    return undefined
  }
  const url = said.length === 0 ? path : `${path}?${said.join("&")}`
  return url.length > LONGEST_URL ? undefined : url
}
