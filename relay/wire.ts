/**
 * The one place that hands framed bytes to a socket which ws also writes to. A text frame is made once and the same
 * bytes go to every client; ws would frame and encode a string anew for each.
 *
 * It relies on one thing of ws: without compression it writes each of its own frames (pong, close) to the socket
 * synchronously and whole, so that whole frames of ours may go between them. tests/relay/wire.test.ts holds that.
 */

import type { Duplex } from "node:stream"
import type { WebSocket } from "ws"

/** One text frame, unmasked as a server sends it (RFC 6455, section 5.2). */
export function frameText(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const headerLength = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(headerLength + length)
  frame[0] = 0x81
  if (length < 126) {
    frame[1] = length
  } else if (length < 65_536) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeBigUInt64BE(BigInt(length), 2)
  }
  frame.write(text, headerLength)
  return frame
}

/** An empty ping frame: browsers answer it by themselves. */
export const PING_FRAME = Buffer.from([0x89, 0x00])

/** A client's socket, seen as a sink of whole frames. */
export interface Wire {
  /** Bytes that were written and not sent, counted a write at a time. */
  readonly queued: number
  /** The same to the byte where that is known: a slow client takes a large write bit by bit. */
  readonly untaken: number
  readonly open: boolean
  /** Writes whole frames. Does nothing once closing. */
  write(frames: Buffer): void
  /** Holds writes back so that they leave as one. */
  cork(): void
  uncork(): void
  close(code: number, reason: string): void
  terminate(): void
}

export function createWire(socket: Duplex, websocket: WebSocket): Wire {
  return {
    get queued() {
      return socket.writableLength
    },
    get untaken() {
      const { _handle: handle } = socket as Duplex & { _handle?: { writeQueueSize?: number } | null }
      return handle?.writeQueueSize ?? socket.writableLength
    },
    get open() {
      return websocket.readyState === websocket.OPEN && socket.writable
    },
    write(frames) {
      if (websocket.readyState === websocket.OPEN && socket.writable) socket.write(frames)
    },
    cork: () => socket.cork(),
    uncork: () => socket.uncork(),
    close: (code, reason) => websocket.close(code, reason),
    terminate: () => websocket.terminate(),
  }
}
