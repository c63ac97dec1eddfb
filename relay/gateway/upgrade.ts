/** The upgrade: what a request asks for, and whether it becomes a connection. */

import type { IncomingMessage } from "node:http"
import type { Auth } from "../access/auth.ts"
import type { Membership } from "../hub/membership.ts"
import { isListedHost } from "../lib/host-list.ts"
import { ChannelName, describeFault } from "../protocol/client-message.ts"
import { FilterFields } from "../protocol/filter.ts"
import type { Limits } from "./limits.ts"
import { REFUSED, type Refusal } from "./refusal.ts"
import type { UpgradeAllowance } from "./upgrade-limits.ts"

export interface UpgradeParameters {
  /** From header, subprotocol and query. More than one is a mistake or an attack. */
  tokens: string[]
  channels: string[]
  cursor: string | undefined
  /** Or what is wrong with it. */
  filter: FilterFields | string
  /** Whether more of it comes by messages, and the last of them starts. */
  byMessage: boolean
}

export type UpgradeVerdict =
  | { accepted: true; address: string; parameters: UpgradeParameters }
  | { accepted: false; refusal: Refusal }

export interface UpgradesDeps {
  hub: Pick<Membership, "ready">
  auth: Pick<Auth, "ready">
  limits: Pick<Limits, "takeUpgrade">
  settings: {
    path: string
    allowedOrigins: readonly string[]
    allowedHosts: readonly string[]
    queryToken: boolean
  }
}

export interface Upgrades {
  /** Whether a request asks for the relay's path. */
  isForRelay(request: IncomingMessage): boolean
  /** Whether its Origin may connect, or it has none. */
  allowsOrigin(request: IncomingMessage): boolean
  /**
   * Decides on an upgrade, and counts it against the limits on upgrades.
   * @param asks a question is a plain request that wants to know what an upgrade would come to.
   */
  judge(request: IncomingMessage, asks: "upgrade" | "question"): UpgradeVerdict
  /** Refuses all from now on. */
  stop(): void
}

export function createUpgrades({ hub, auth, limits, settings }: UpgradesDeps): Upgrades {
  let stopping = false

  const isOnPath = (url: URL): boolean => url.pathname.replace(/\/$/, "") === settings.path

  const refused = (refusal: Refusal): UpgradeVerdict => ({ accepted: false, refusal })

  const allowsOrigin = (request: IncomingMessage): boolean =>
    isAllowed(request.headers.origin, request, settings)

  return {
    isForRelay(request) {
      const url = readTarget(request)
      return url !== undefined && isOnPath(url)
    },
    allowsOrigin,
    judge(request, asks) {
      const url = readTarget(request)
      if (url === undefined) return refused(REFUSED.target)
      const malformed = malformedWhy(request, asks)
      if (malformed !== undefined) return refused(malformed)
      if (!isOnPath(url)) return refused(wrongPath(settings.path))
      const origins = asks === "question" ? url.searchParams.getAll("origin") : []
      if (!allowsOrigin(request) || !origins.every((origin) => isAllowed(origin, request, settings)))
        return refused(REFUSED.origin)
      if (asks === "question" && isOfAnotherSite(request)) return refused(REFUSED.anotherSite)
      if (stopping) return refused(REFUSED.stopping)
      if (!hub.ready() || !auth.ready()) return refused(REFUSED.notReady)
      const allowance = limits.takeUpgrade(request)
      if (!allowance.allowed) return refused(limitReached(allowance))
      const parameters = readParameters(request, url, settings.queryToken)
      if (parameters === undefined) return refused(REFUSED.channel)
      return { accepted: true, address: allowance.address, parameters }
    },
    stop() {
      stopping = true
    },
  }
}

/**
 * Reads the target of a request: a path, or a whole URL as proxies write it.
 * @returns undefined if it is neither, or written so that servers and proxies may take it for different paths.
 */
export function readTarget({ url: target = "" }: IncomingMessage): URL | undefined {
  const path = /^(?:https?:\/\/[^/?#\\]+)?(\/[^?#]*)(?:\?[^#]*)?$/i.exec(target)?.[1]
  if (path === undefined || !URL.canParse(target, "http://relay")) return undefined
  const url = new URL(target, "http://relay")
  return url.pathname === path ? url : undefined
}

/** What is wrong with the form of a request; undefined if nothing is. */
function malformedWhy(request: IncomingMessage, asks: "upgrade" | "question"): Refusal | undefined {
  const { method, httpVersion, headersDistinct } = request
  if (method !== "GET" && !(asks === "question" && method === "HEAD")) return REFUSED.method
  const { host, "content-length": lengths = [], "transfer-encoding": encodings } = headersDistinct
  // A proxy in front may read another host, or a body where frames are read here.
  if (httpVersion !== "1.1" || host?.length !== 1) return REFUSED.http
  if (encodings !== undefined || lengths.some((length) => length !== "0")) return REFUSED.body
  // ws takes version 8 too, in which browsers name their origin in another header.
  if (asks === "upgrade" && headersDistinct["sec-websocket-version"]?.join() !== "13") return REFUSED.version
  return undefined
}

/** Whether an origin, which only browsers send, is the relay's own host or an allowed one. `null` never is. */
function isAllowed(
  origin: string | undefined,
  { headers: { host } }: IncomingMessage,
  { allowedOrigins, allowedHosts }: Pick<UpgradesDeps["settings"], "allowedOrigins" | "allowedHosts">,
): boolean {
  if (origin === undefined || allowedOrigins.includes(origin)) return true
  return URL.canParse(origin) && new URL(origin).host === host && isListedHost(allowedHosts, host)
}

/**
 * Whether a browser asks on behalf of another site's page without its Origin, as for a picture or a frame. That page
 * could not read the answer, but the visitor's address, and all clients, would have the less upgrades left.
 */
const isOfAnotherSite = ({ headers }: IncomingMessage): boolean =>
  headers.origin === undefined && /^(cross|same)-site$/.test(String(headers["sec-fetch-site"] ?? ""))

const wrongPath = (path: string): Refusal => ({
  status: 404,
  result: "wrong_path",
  message: `No WebSocket is at this path: connect to ${path || "/"}.`,
})

const limitReached = ({
  limit,
  status,
  retrySeconds,
}: Extract<UpgradeAllowance, { allowed: false }>): Refusal => ({
  status,
  result: limit,
  message: `MAX_${limit.toUpperCase()} has been reached: come back in ${retrySeconds} s. Where these are real clients, raise it.`,
  retrySeconds,
})

const BEARER = "bearer."

/** @returns undefined if a channel is malformed. */
function readParameters(
  request: IncomingMessage,
  url: URL,
  queryToken: boolean,
): UpgradeParameters | undefined {
  const tokens = bearerTokens(request)
  for (const offered of (request.headers["sec-websocket-protocol"] ?? "").split(",")) {
    if (offered.trim().startsWith(BEARER)) tokens.push(offered.trim().slice(BEARER.length))
  }
  if (queryToken) tokens.push(...url.searchParams.getAll("token"))
  const channels = [...url.searchParams.getAll("channel"), ...readList(url, "channels")]
  if (!channels.every((channel) => ChannelName.safeParse(channel).success)) return undefined
  const cursor = url.searchParams.get("cursor") ?? undefined
  const byMessage = url.searchParams.get("start") === "message"
  return { tokens, channels, cursor, filter: readFilter(url), byMessage }
}

/** The tokens of all Authorization headers: `headers` has only the first. Whatever follows the scheme is one. */
export const bearerTokens = (request: IncomingMessage): string[] =>
  (request.headersDistinct.authorization ?? []).flatMap(
    (header) =>
      /^Bearer(?:\s+(.*))?$/i
        .exec(header)
        ?.slice(1)
        .map((token) => token ?? "") ?? [],
  )

const readList = (url: URL, name: string): string[] =>
  (url.searchParams.get(name) ?? "").split(",").filter((item) => item !== "")

function readFilter(url: URL): FilterFields | string {
  const where = url.searchParams.get("where") || undefined
  const list = (name: string) => (readList(url, name).length > 0 ? readList(url, name) : undefined)
  try {
    const fields = { where: where && JSON.parse(where), types: list("types"), actions: list("actions") }
    const read = FilterFields.safeParse(fields)
    return read.success ? read.data : describeFault(read.error)
  } catch {
    return "where: not JSON"
  }
}
