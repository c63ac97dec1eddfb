/** The upgrade: what a request asks for, and whether it becomes a connection. */

import type { IncomingMessage } from "node:http"
import type { Auth } from "../access/auth.ts"
import type { Membership } from "../hub/membership.ts"
import { ChannelName, describeFault } from "../protocol/client-message.ts"
import { FilterFields } from "../protocol/filter.ts"
import type { Limits } from "./limits.ts"

export interface UpgradeParameters {
  /** From header, subprotocol and query. More than one is a mistake or an attack. */
  tokens: string[]
  channels: string[]
  cursor: string | undefined
  /** Or what is wrong with it. */
  filter: FilterFields | string
}

/** The result is the one under which a refusal is counted. */
export type UpgradeVerdict =
  | { accepted: true; address: string; parameters: UpgradeParameters }
  | { accepted: false; status: number; result: string; retrySeconds?: number }

export interface UpgradesDeps {
  hub: Pick<Membership, "ready">
  auth: Pick<Auth, "ready">
  limits: Pick<Limits, "takeUpgrade">
  settings: { path: string; allowedOrigins: readonly string[]; queryToken: boolean }
}

export interface Upgrades {
  /** Whether a request asks for the relay's path. */
  isForRelay(request: IncomingMessage): boolean
  judge(request: IncomingMessage): UpgradeVerdict
  /** Refuses all from now on. */
  stop(): void
}

export function createUpgrades({ hub, auth, limits, settings }: UpgradesDeps): Upgrades {
  let stopping = false

  const isOnPath = (url: URL): boolean => url.pathname.replace(/\/$/, "") === settings.path

  const refused = (status: number, result: string, retrySeconds?: number): UpgradeVerdict =>
    retrySeconds === undefined
      ? { accepted: false, status, result }
      : { accepted: false, status, result, retrySeconds }

  return {
    isForRelay(request) {
      const url = readTarget(request)
      return url !== undefined && isOnPath(url)
    },
    judge(request) {
      const url = readTarget(request)
      if (url === undefined) return refused(400, "bad_request")
      const status = malformedStatus(request)
      if (status !== undefined) return refused(status, "bad_request")
      if (!isOnPath(url)) return refused(404, "wrong_path")
      if (!originAllowed(request, settings.allowedOrigins)) return refused(403, "origin")
      if (stopping) return refused(503, "stopping", 1)
      if (!hub.ready() || !auth.ready()) return refused(503, "not_ready", 1)
      const allowance = limits.takeUpgrade(request)
      if (!allowance.allowed) return refused(allowance.status, allowance.limit, allowance.retrySeconds)
      const parameters = readParameters(request, url, settings.queryToken)
      if (parameters === undefined) return refused(400, "bad_request")
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

/** The HTTP status of a malformed upgrade request; undefined if it is well-formed. */
function malformedStatus({ method, httpVersion, headersDistinct }: IncomingMessage): number | undefined {
  if (method !== "GET") return 405
  const { host, "content-length": lengths = [], "transfer-encoding": encodings } = headersDistinct
  // A proxy in front may read another host, or a body where frames are read here.
  if (httpVersion !== "1.1" || host?.length !== 1) return 400
  if (encodings !== undefined || lengths.some((length) => length !== "0")) return 400
  // ws takes version 8 too, in which browsers name their origin in another header.
  if (headersDistinct["sec-websocket-version"]?.join() !== "13") return 426
  return undefined
}

/** Whether the Origin, which only browsers send, is the relay's own host or an allowed one. `null` never is. */
function originAllowed(request: IncomingMessage, allowed: readonly string[]): boolean {
  const { origin, host } = request.headers
  if (origin === undefined || allowed.includes(origin)) return true
  return URL.canParse(origin) && new URL(origin).host === host
}

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
  const channels = readList(url, "channels")
  if (!channels.every((channel) => ChannelName.safeParse(channel).success)) return undefined
  const cursor = url.searchParams.get("cursor") ?? undefined
  return { tokens, channels, cursor, filter: readFilter(url) }
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
