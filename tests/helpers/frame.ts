/** WebSocket frames to the byte: those of a client, right or wrong, and those of the relay as words to compare. */

/** RFC 6455, section 5.2. */
export const Opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

export interface FrameOptions {
  opcode?: number
  fin?: boolean
  /** The reserved bits, 4 to 1. */
  reserved?: number
  /** Null: not masked. */
  mask?: Buffer | null
  /** How the length is written; by default in the shortest way. */
  lengthBytes?: 0 | 2 | 8
  /** What is said of the length, if that is not the truth. */
  declared?: bigint
}

const MASK = Buffer.from([0x12, 0x34, 0x56, 0x78])

/** A frame as a client sends it: whole, text and masked unless the options say otherwise. */
export function frame(payload: string | Buffer, options: FrameOptions = {}): Buffer {
  const { opcode = Opcode.text, fin = true, reserved = 0, mask = MASK } = options
  const data = Buffer.from(payload)
  const declared = options.declared ?? BigInt(data.length)
  const lengthBytes = options.lengthBytes ?? (declared < 126n ? 0 : declared < 65_536n ? 2 : 8)
  const head = Buffer.alloc(2 + lengthBytes)
  head[0] = (fin ? 0x80 : 0) | (reserved << 4) | opcode
  head[1] =
    (mask === null ? 0 : 0x80) | (lengthBytes === 0 ? Number(declared) : lengthBytes === 2 ? 126 : 127)
  if (lengthBytes === 2) head.writeUInt16BE(Number(declared), 2)
  if (lengthBytes === 8) head.writeBigUInt64BE(declared, 2)
  if (mask === null) return Buffer.concat([head, data])
  return Buffer.concat([head, mask, data.map((byte, index) => byte ^ (mask[index % 4] ?? 0))])
}

/** A message of the protocol in one frame. */
export const say = (message: object, options?: FrameOptions): Buffer =>
  frame(JSON.stringify(message), options)

/** A close frame; without a code an empty one. */
export function closing(code?: number, reason: string | Buffer = ""): Buffer {
  const head = Buffer.alloc(code === undefined ? 0 : 2)
  if (code !== undefined) head.writeUInt16BE(code)
  return frame(Buffer.concat([head, Buffer.from(reason)]), { opcode: Opcode.close })
}

/** A message in fragments, as they are given. */
export const fragments = (parts: ReadonlyArray<string | Buffer>, opcode: number = Opcode.text): Buffer =>
  Buffer.concat(
    parts.map((part, index) =>
      frame(part, {
        opcode: index === 0 ? opcode : Opcode.continuation,
        fin: index === parts.length - 1,
      }),
    ),
  )

interface Whole {
  opcode: number
  payload: Buffer
}

/** The frames of a server as far as they are whole. */
export function readFrames(bytes: Buffer): Whole[] {
  const found: Whole[] = []
  for (let at = 0; at + 2 <= bytes.length; ) {
    const short = bytes.readUInt8(at + 1)
    const start = at + (short < 126 ? 2 : short === 126 ? 4 : 10)
    if (start > bytes.length) break
    const length =
      short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2))
    if (start + length > bytes.length) break
    found.push({ opcode: bytes.readUInt8(at) & 0x0f, payload: bytes.subarray(start, start + length) })
    at = start + length
  }
  return found
}

/**
 * A frame of the relay in words: `close 1002`, `PONG` with its payload for a control frame, and a message by its type with
 * its code or request, such as `pong 7` and `error bad_message`.
 */
export function wordOf({ opcode, payload }: Whole): string {
  if (opcode === Opcode.close) return `close ${payload.length === 0 ? "empty" : payload.readUInt16BE(0)}`
  if (opcode === Opcode.pong) return payload.length === 0 ? "PONG" : `PONG ${payload.toString()}`
  if (opcode !== Opcode.text) return `opcode ${opcode}`
  const { type, code, request } = JSON.parse(payload.toString()) as Record<string, unknown>
  return [type, code ?? request].filter((word) => word !== undefined).join(" ")
}
