/** What an upgrade request asks for, whether its page may ask, and the answers that are no upgrade. */

import { type IncomingMessage, type Server, ServerResponse, STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { ChannelName, describeFault } from "../protocol/client-message.ts"
import { FilterFields } from "../protocol/filter.ts"

export interface Handshake {
  /** Wherever they came: header, subprotocol, query. More than one is a mistake or an attack. */
  tokens: string[]
  channels: string[]
  cursor: string | undefined
  /** Or what is wrong with it. */
  filter: FilterFields | string
}

/** The one subprotocol that is answered: the token beside it must not come back. */
export const SUBPROTOCOL = "commitcast.v1"
const BEARER = "bearer."

/** Whether the Origin, which browsers alone send, is the relay's own host or an allowed one. `null` never is. */
export function originAllowed(request: IncomingMessage, allowed: readonly string[]): boolean {
  const { origin, host } = request.headers
  if (origin === undefined || allowed.includes(origin)) return true
  return URL.canParse(origin) && new URL(origin).host === host
}

/** The tokens of all its Authorization headers: Node itself shows the first alone. Whatever follows the scheme is one. */
export const bearerTokens = (request: IncomingMessage): string[] =>
  (request.headersDistinct.authorization ?? []).flatMap(
    (header) =>
      /^Bearer(?:\s+(.*))?$/i
        .exec(header)
        ?.slice(1)
        .map((token) => token ?? "") ?? [],
  )

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

/** What is wrong with the form of an upgrade request, as an HTTP status; undefined if nothing is. */
export function misformed({ method, httpVersion, headersDistinct }: IncomingMessage): number | undefined {
  if (method !== "GET") return 405
  const { host, "content-length": lengths = [], "transfer-encoding": encodings } = headersDistinct
  // A proxy in front may read another host, or a body where frames are read here.
  if (httpVersion !== "1.1" || host?.length !== 1) return 400
  if (encodings !== undefined || lengths.some((length) => length !== "0")) return 400
  // ws takes version 8 too, in which browsers name their origin in another header.
  if (headersDistinct["sec-websocket-version"]?.join() !== "13") return 426
  return undefined
}

/**
 * Whether an answer to an earlier request on this socket is under way: frames would fall into it, and Node throws where
 * another answer is begun. It keeps the answer in a field of its own.
 */
export const answering = (socket: Duplex): boolean =>
  ((socket as Duplex & { _httpMessage?: object | null })._httpMessage ?? null) !== null

/** Reads an upgrade request. @returns undefined if a parameter is malformed. */
export function readHandshake(
  request: IncomingMessage,
  url: URL,
  queryToken: boolean,
): Handshake | undefined {
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

/** Whoever does not hang up in turn keeps no socket. */
const destroyOnceEnded = (socket: Duplex): Duplex => socket.once("finish", () => socket.destroy())

/** What some statuses must say beside themselves. */
const REMEDIES: Record<number, string> = {
  405: "Allow: GET\r\n",
  426: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
}

/** Answers an upgrade that is refused. @param retrySeconds when to come back, if that may help. */
export function answerRefusal(socket: Duplex, status: number, retrySeconds?: number): void {
  destroyOnceEnded(socket)
  const remedy = retrySeconds === undefined ? (REMEDIES[status] ?? "") : `Retry-After: ${retrySeconds}\r\n`
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n${remedy}\r\n`,
  )
}

/** Another upgrade, such as curl's offer of HTTP/2, is an offer only: the request stands (RFC 9110, section 7.8). */
export function answerPlainly(http: Server, request: IncomingMessage, socket: Duplex): void {
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(socket as Socket)
  destroyOnceEnded(socket)
  response.once("finish", () => socket.end())
  socket.on("error", () => socket.destroy())
  http.emit("request", request, response)
}
