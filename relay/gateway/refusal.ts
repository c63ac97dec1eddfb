/** The answers to upgrade requests that become no WebSocket. */

import { type IncomingMessage, type Server, ServerResponse, STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"

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

/**
 * Whether an answer to an earlier request on this socket is under way: frames would fall into it, and Node throws where
 * another answer is begun. Node keeps the answer in a field of its own.
 */
export const isAnswering = (socket: Duplex): boolean =>
  ((socket as Duplex & { _httpMessage?: object | null })._httpMessage ?? null) !== null

/** A client that does not hang up in turn keeps no socket. */
const destroyOnceEnded = (socket: Duplex): Duplex => socket.once("finish", () => socket.destroy())
