/** One WebSocket: its frames and its one end. Once this side has closed it, no event comes any more. */

import { messageOf } from "./error.ts"

/** A handler may take any event that has the fields, because browsers and ws type theirs differently. */
type Handler<E> = { bivarianceHack(event: E): void }["bivarianceHack"] | null

/** As much as is needed of a WebSocket, be it the browser's or that of `ws`. */
export interface WebSocketLike {
  onopen: Handler<object>
  onmessage: Handler<{ data: unknown }>
  onclose: Handler<{ code: number; reason: string }>
  onerror: Handler<object>
  send(data: string): void
  close(code?: number, reason?: string): void
  /** Only ws has it. close() waits for an answer, which a dead peer does not give. */
  terminate?(): void
}
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike

export interface Socket {
  send(message: object): void
  /** @param graceful waits for the peer, which may be gone. */
  close(graceful: boolean): void
}

export interface SocketEvents {
  onOpen(): void
  onFrame(data: unknown): void
  onEnd(code: number, cause: string): void
}

const NORMAL_CLOSURE = 1000

/** @throws what the constructor throws if no request can have this URL or token. */
export function openSocket(
  WebSocket: WebSocketConstructor,
  url: string,
  token: string,
  { onOpen, onFrame, onEnd }: SocketEvents,
): Socket {
  // The token stands beside the protocol because proxies log URLs. The relay answers with the protocol alone.
  const socket = new WebSocket(url, ["commitcast.v1", `bearer.${token}`])
  let failure = ""
  socket.onopen = onOpen
  socket.onmessage = ({ data }) => onFrame(data)
  socket.onerror = (event) => {
    if ("message" in event) failure = messageOf(event.message)
  }
  socket.onclose = ({ code, reason }) =>
    onEnd(code, `closed with ${code}: ${reason || failure || "connection lost"}`)
  return {
    send: (message) => socket.send(JSON.stringify(message)),
    close(graceful) {
      socket.onopen = null
      socket.onmessage = null
      socket.onclose = null
      socket.onerror = () => {}
      if (graceful || socket.terminate === undefined) socket.close(NORMAL_CLOSURE)
      else socket.terminate()
    },
  }
}
