/** Frames: messages as the bytes of RFC 6455. */

/** The first byte of a whole text frame. */
export const TEXT = 0x81

/** One text frame, unmasked as a server sends it (RFC 6455, section 5.2). */
export function frameText(text: string): Buffer {
  const length = Buffer.byteLength(text)
  const headerLength = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(headerLength + length)
  frame[0] = TEXT
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
