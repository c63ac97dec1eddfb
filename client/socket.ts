/** One WebSocket: its frames, its one end, and nothing more once it was hung up. */

import { messageOf } from "./error.ts"

/** Lets a handler take any event that has the fields: browsers and ws type theirs differently. */
type Handler<E> = { bivarianceHack(event: E): void }["bivarianceHack"] | null

/** As much of a WebSocket as is needed, of a browser or of `ws`. */
export interface WebSocketLike {
  onopen: Handler<object>
  onmessage: Handler<{ data: unknown }>
  onclose: Handler<{ code: number; reason: string }>
  onerror: Handler<object>
  send(data: string): void
  close(code?: number, reason?: string): void
  /** ws has it: close() waits for an answer, which a dead peer does not give. */
  terminate?(): void
}
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike

export interface Socket {
  send(message: object): void
  /** Nothing more is heard of it. */
  hangUp(politely: boolean): void
}

export interface SocketEvents {
  onOpen(): void
  onFrame(data: unknown): void
  onEnd(code: number, cause: string): void
}

const NORMAL_CLOSURE = 1000

/** @throws whatever the constructor throws: the URL or the token can be in no request. */
export function openSocket(
  WebSocket: WebSocketConstructor,
  url: string,
  token: string,
  { onOpen, onFrame, onEnd }: SocketEvents,
): Socket {
  // The token beside the protocol: out of the URL, which proxies log. The relay answers the protocol only.
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
    hangUp(politely) {
      socket.onopen = null
      socket.onmessage = null
      socket.onclose = null
      socket.onerror = () => {}
      if (politely || socket.terminate === undefined) socket.close(NORMAL_CLOSURE)
      else socket.terminate()
    },
  }
}
