/** The address of a client: who is behind a request, as far as proxies are trusted. */

import type { IncomingMessage } from "node:http"
import ipaddr from "ipaddr.js"
import proxyaddr from "proxy-addr"

/** Whether to trust the proxy at this address, this many hops away, about whom it forwards for. */
export type Trust = (address: string, hop: number) => boolean

/** TRUST_PROXY, with the meaning of Express's "trust proxy". @throws TypeError if it is no address. */
export function readTrust(text: string): Trust {
  if (text === "true" || text === "false") return () => text === "true"
  if (/^\d+$/.test(text)) return (_, hop) => hop < Number(text)
  return proxyaddr.compile(text.split(",").map((address) => address.trim()))
}

/**
 * The client's address; of IPv6 the /64, since one host has all of it. If a trusted proxy names none, the address of the
 * nearest proxy, so that no header can invent a key.
 */
export function clientOf(request: IncomingMessage, trust: Trust): string {
  return networkOf(proxyaddr(request, trust)) ?? networkOf(request.socket.remoteAddress) ?? "unknown"
}

/** Whether the request claims to come through a proxy that is not trusted. */
export const fromUntrustedProxy = (request: IncomingMessage, trust: Trust): boolean =>
  request.headers["x-forwarded-for"] !== undefined && !trust(request.socket.remoteAddress ?? "", 0)

/** Some proxies add the port. */
const WITH_PORT = /^(?:(\d+\.\d+\.\d+\.\d+)|\[(.+)\])(?::\d+)?$/

function networkOf(text = ""): string | undefined {
  const [, four, six] = WITH_PORT.exec(text) ?? []
  const bare = four ?? six ?? text
  if (!ipaddr.isValid(bare)) return undefined
  const address = ipaddr.process(bare)
  if (!("parts" in address)) return address.toString()
  const network = address.parts.slice(0, 4).map((part) => part.toString(16))
  return `${network.join(":")}::/64`
}
