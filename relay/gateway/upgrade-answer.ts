/** The answers on sockets whose requests become no WebSocket. */

import { type IncomingMessage, type Server, ServerResponse, STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { answerOf, badRequest, type Refusal } from "./refusal.ts"

/** Answers an upgrade that is refused. */
export function answerRefusal({ method }: IncomingMessage, socket: Duplex, refusal: Refusal): void {
  destroyOnceEnded(socket)
  socket.end(textOf(refusal, method !== "HEAD"))
}

/** Whoever asked: what could not be read has no origin, and the answer says nothing but itself. */
const READABLE = { "Access-Control-Allow-Origin": "*" }

/** What Node gives up reading, by its own name for why. */
const UNREADABLE: Record<string, Refusal> = {
  HPE_HEADER_OVERFLOW: {
    status: 431,
    result: "too_long",
    message:
      "The URL and the headers are longer than 16 KiB: connect with ?start=message, and ask for channels, filter and cursor by messages.",
  },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: badRequest("The request has too long a body: send none.", 413),
  ERR_HTTP_REQUEST_TIMEOUT: {
    status: 408,
    result: "too_slow",
    message: "The request did not come in time: send it at once.",
  },
}
const MALFORMED = badRequest(
  "The request is not one of HTTP/1.1: see what stands between here and the relay.",
)

/** Answers a request that Node's parser gives up, as its server's `clientError`. */
export function answerUnreadable(error: Error & { code?: string }, socket: Duplex): void {
  const begun = answerOn(socket)?.headersSent === true
  if (!socket.writable || begun) return void socket.destroy()
  destroyOnceEnded(socket)
  socket.end(textOf(UNREADABLE[error.code ?? ""] ?? MALFORMED, true, READABLE))
}

function textOf(refusal: Refusal, withBody: boolean, more: Record<string, string> = {}): string {
  const { headers, body } = answerOf(refusal)
  const lines = Object.entries({ Connection: "close", ...headers, ...more }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  )
  const head = `HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status]}\r\n${lines.join("")}\r\n`
  return withBody ? head + body : head
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
 * another answer is begun.
 */
export const isAnswering = (socket: Duplex): boolean => answerOn(socket) !== undefined

/** Node keeps the answer that is under way in a field of its own. */
const answerOn = (socket: Duplex): ServerResponse | undefined =>
  (socket as Duplex & { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined

/** A client that does not hang up in turn keeps no socket. */
const destroyOnceEnded = (socket: Duplex): Duplex => socket.once("finish", () => socket.destroy())
