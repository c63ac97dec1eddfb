/** Finds the frames in what a socket brings, by their headers (RFC 6455, section 5.2), and decodes none of them. */

/** A whole frame: its payload lies in `bytes` from `start` to `end`, for the time of the call only. */
export type OnFrame = (opcode: number, bytes: Buffer, start: number, end: number) => void

const LONGEST_HEADER = 14

/** Takes chunks as they come, however frames are cut or joined in them. */
export class FrameWalker {
  readonly #onFrame: OnFrame
  /** What has come of a frame that is not whole yet; its size once the header is known. */
  #part = Buffer.alloc(0)
  #filled = 0
  #size: number | undefined

  constructor(onFrame: OnFrame) {
    this.#onFrame = onFrame
  }

  /** Takes `bytes` from `start` to `end`, and keeps no reference to them. */
  push(bytes: Buffer, start: number, end: number): void {
    let at = this.#filled > 0 ? this.#complete(bytes, start, end) : start
    while (at < end) {
      const size = frameSize(bytes, at, end)
      if (size === undefined || at + size > end) {
        this.#part = Buffer.allocUnsafe(size ?? LONGEST_HEADER)
        this.#size = size
        this.#filled = bytes.copy(this.#part, 0, at, end)
        return
      }
      this.#tell(bytes, at, size)
      at += size
    }
  }

  /** Adds to the frame that is not whole. @returns where the rest begins. */
  #complete(bytes: Buffer, start: number, end: number): number {
    let at = start
    while (this.#size === undefined && at < end) {
      this.#part[this.#filled++] = bytes[at++] as number
      this.#size = frameSize(this.#part, 0, this.#filled)
    }
    if (this.#size === undefined) return at
    if (this.#part.length < this.#size) {
      const whole = Buffer.allocUnsafe(this.#size)
      this.#part.copy(whole, 0, 0, this.#filled)
      this.#part = whole
    }
    const taken = bytes.copy(this.#part, this.#filled, at, Math.min(end, at + this.#size - this.#filled))
    this.#filled += taken
    if (this.#filled === this.#size) {
      this.#tell(this.#part, 0, this.#size)
      this.#part = Buffer.alloc(0)
      this.#filled = 0
      this.#size = undefined
    }
    return at + taken
  }

  #tell(bytes: Buffer, at: number, size: number): void {
    const opcode = (bytes[at] as number) & 0x0f
    this.#onFrame(opcode, bytes, at + headerLength(bytes[at + 1] as number), at + size)
  }
}

function headerLength(second: number): number {
  const length = second & 0x7f
  return (length < 126 ? 2 : length === 126 ? 4 : 10) + (second & 0x80 ? 4 : 0)
}

/** Header and payload together; undefined while the header is not whole. */
function frameSize(bytes: Buffer, at: number, end: number): number | undefined {
  if (end - at < 2) return undefined
  const second = bytes[at + 1] as number
  const header = headerLength(second)
  if (end - at < header) return undefined
  const length = second & 0x7f
  if (length < 126) return header + length
  return header + (length === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2)))
}
