/** What an upgrade request asks for, whether its page may ask, and the answers that are no upgrade. */

import { type IncomingMessage, type Server, ServerResponse, STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { ChannelName } from "./protocol.ts"

export interface Handshake {
  /** Wherever they came: header, subprotocol, query. More than one is a mistake or an attack. */
  tokens: string[]
  channels: string[]
  cursor: string | undefined
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

/** Reads an upgrade request. @returns undefined if a parameter is malformed. */
export function readHandshake(
  request: IncomingMessage,
  url: URL,
  queryToken: boolean,
): Handshake | undefined {
  const tokens: string[] = []
  const authorization = /^Bearer\s+(\S+)$/i.exec(request.headers.authorization ?? "")
  if (authorization !== null) tokens.push(authorization[1] as string)
  for (const offered of (request.headers["sec-websocket-protocol"] ?? "").split(",")) {
    if (offered.trim().startsWith(BEARER)) tokens.push(offered.trim().slice(BEARER.length))
  }
  if (queryToken) tokens.push(...url.searchParams.getAll("token"))
  const channels = (url.searchParams.get("channels") ?? "").split(",").filter((channel) => channel !== "")
  if (!channels.every((channel) => ChannelName.safeParse(channel).success)) return undefined
  return { tokens, channels, cursor: url.searchParams.get("cursor") ?? undefined }
}

/** Whoever does not hang up in turn keeps no socket. */
const destroyOnceEnded = (socket: Duplex): Duplex => socket.once("finish", () => socket.destroy())

/** Answers an upgrade that is refused. @param retrySeconds when to come back, if that may help. */
export function answerRefusal(socket: Duplex, status: number, retrySeconds?: number): void {
  destroyOnceEnded(socket)
  const retry = retrySeconds === undefined ? "" : `Retry-After: ${retrySeconds}\r\n`
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n${retry}\r\n`,
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
