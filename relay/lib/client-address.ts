/** The address of a client: who is behind a request, as far as proxies are believed. */

import type { IncomingMessage } from "node:http"
import ipaddr from "ipaddr.js"
import proxyaddr from "proxy-addr"

/** Whether the proxy at this address, so many hops away, is believed when it says whom it speaks for. */
export type Trust = (address: string, hop: number) => boolean

/** TRUST_PROXY, with the meaning of Express's "trust proxy". @throws TypeError if it is no address. */
export function readTrust(text: string): Trust {
  if (text === "true" || text === "false") return () => text === "true"
  if (/^\d+$/.test(text)) return (_, hop) => hop < Number(text)
  return proxyaddr.compile(text.split(",").map((address) => address.trim()))
}

/**
 * The client's address: of IPv6 the /64, since a host has all of it. Where a proxy that is believed names none, the
 * address of the nearest: whatever a header says, it makes no key of its own.
 */
export function clientOf(request: IncomingMessage, trust: Trust): string {
  return networkOf(proxyaddr(request, trust)) ?? networkOf(request.socket.remoteAddress) ?? "unknown"
}

/** Whether the request says that it comes from a proxy, and that proxy is not believed. */
export const speaksInVain = (request: IncomingMessage, trust: Trust): boolean =>
  request.headers["x-forwarded-for"] !== undefined && !trust(request.socket.remoteAddress ?? "", 0)

/** Some proxies write the port too. */
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
