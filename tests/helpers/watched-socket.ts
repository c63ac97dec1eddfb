/** A WebSocket of which nothing ever comes, for tests of what a client asks for. */

import type { WebSocketConstructor, WebSocketLike } from "../../client/socket.ts"

export function watchSockets(): { WebSocket: WebSocketConstructor; urls: string[] } {
  const urls: string[] = []
  class WebSocket implements WebSocketLike {
    onopen: WebSocketLike["onopen"] = null
    onmessage: WebSocketLike["onmessage"] = null
    onclose: WebSocketLike["onclose"] = null
    onerror: WebSocketLike["onerror"] = null
    constructor(url: string) {
      urls.push(url)
    }
    send(): void {}
    close(): void {}
  }
  return { WebSocket, urls }
}
