/**
 * The one place that hands framed bytes to a socket which ws also writes to. A text frame is made once and the same
 * bytes go to every client; ws would frame and encode a string anew for each.
 *
 * It relies on one thing of ws: without extensions it writes each of its own frames (pong, close) to the socket of the
 * upgrade, synchronously and whole, so that whole frames of ours may go between them (tests/relay/wire.test.ts).
 * Otherwise each frame goes through ws.
 */

import type { Duplex } from "node:stream"
import type { WebSocket } from "ws"
import { TEXT } from "../protocol/frame.ts"

/** A client's socket, seen as a sink of whole frames. */
export interface Wire {
  /** Bytes that were written and not sent. */
  readonly queued: number
  /** Whether to hand it nothing until it has drained. */
  readonly full: boolean
  /** Bytes that have left since the beginning, of ws's own frames too: a slow client takes a large write bit by bit. */
  readonly sent: number
  readonly open: boolean
  /** Writes whole frames. Does nothing once closing. */
  write(frames: Buffer): void
  /** Holds writes back so that they leave as one. */
  cork(): void
  uncork(): void
  close(code: number, reason: string): void
  terminate(): void
}

/**
 * @param socket that of the upgrade, to which ws writes.
 * @param onDrain called when a full wire has drained.
 */
export function createWire(socket: Duplex, websocket: WebSocket, onDrain: () => void): Wire {
  const { _socket: used } = websocket as WebSocket & { _socket?: unknown }
  if (used === socket && websocket.extensions === "") return new DirectWire(socket, websocket, onDrain)
  return new IndirectWire(websocket, onDrain)
}

type Counting = { _handle?: { bytesWritten?: number; writeQueueSize?: number } | null; bytesWritten?: number }

class DirectWire implements Wire {
  readonly #socket: Duplex
  readonly #websocket: WebSocket

  constructor(socket: Duplex, websocket: WebSocket, onDrain: () => void) {
    this.#socket = socket
    this.#websocket = websocket
    socket.on("drain", onDrain)
  }

  get queued(): number {
    return this.#socket.writableLength
  }

  get full(): boolean {
    return this.#socket.writableNeedDrain
  }

  get sent(): number {
    // To the byte where Node's internals have it, else by whole writes.
    const { _handle: handle, bytesWritten = 0 } = this.#socket as Duplex & Counting
    if (handle?.bytesWritten !== undefined && handle.writeQueueSize !== undefined)
      return handle.bytesWritten - handle.writeQueueSize
    return bytesWritten - this.#socket.writableLength
  }

  get open(): boolean {
    return this.#websocket.readyState === this.#websocket.OPEN && this.#socket.writable
  }

  write(frames: Buffer): void {
    if (this.open) this.#socket.write(frames)
  }

  cork(): void {
    this.#socket.cork()
  }

  uncork(): void {
    this.#socket.uncork()
  }

  close(code: number, reason: string): void {
    this.#websocket.close(code, shortened(reason))
  }

  terminate(): void {
    this.#websocket.terminate()
  }
}

/** As much as a socket takes before it is full. Bytes. */
const FULL_BYTES = 65_536

/**
 * Goes through ws, frame by frame: for a connection with an extension, which changes what frames look like, or where ws
 * writes to something else than the socket of the upgrade.
 */
class IndirectWire implements Wire {
  readonly #websocket: WebSocket
  readonly #onDrain: () => void
  #full = false
  sent = 0

  constructor(websocket: WebSocket, onDrain: () => void) {
    this.#websocket = websocket
    this.#onDrain = onDrain
  }

  get queued(): number {
    return this.#websocket.bufferedAmount
  }

  get full(): boolean {
    return this.#full
  }

  get open(): boolean {
    return this.#websocket.readyState === this.#websocket.OPEN
  }

  write(frames: Buffer): void {
    if (!this.open) return
    for (const { text, payload } of framesIn(frames)) {
      if (text) this.#websocket.send(payload, { binary: false }, () => this.#left(payload.length))
      else this.#websocket.ping(payload)
    }
    if (this.queued >= FULL_BYTES) this.#full = true
  }

  cork(): void {}

  uncork(): void {}

  close(code: number, reason: string): void {
    this.#websocket.close(code, shortened(reason))
  }

  terminate(): void {
    this.#websocket.terminate()
  }

  #left(bytes: number): void {
    this.sent += bytes
    if (!this.#full || this.queued > 0) return
    this.#full = false
    this.#onDrain()
  }
}

/** As much of a reason as a close frame holds, which is 123 bytes, in whole characters: ws throws beyond. */
const shortened = (reason: string): string =>
  new TextDecoder().decode(Buffer.from(reason).subarray(0, 123), { stream: true })

/** The frames of a buffer as `frameText` and `PING_FRAME` make them. */
function* framesIn(frames: Buffer): Generator<{ text: boolean; payload: Buffer }> {
  for (let at = 0; at < frames.length; ) {
    const short = frames.readUInt8(at + 1)
    const start = at + (short < 126 ? 2 : short === 126 ? 4 : 10)
    const length =
      short < 126
        ? short
        : short === 126
          ? frames.readUInt16BE(at + 2)
          : Number(frames.readBigUInt64BE(at + 2))
    yield { text: frames[at] === TEXT, payload: frames.subarray(start, start + length) }
    at = start + length
  }
}
