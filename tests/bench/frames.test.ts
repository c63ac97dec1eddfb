/** The load generator counts frames that it does not decode: whatever way they are cut and joined, it counts each once. */

import { isDeepStrictEqual } from "node:util"
import fc from "fast-check"
import t from "tap"
import { FrameWalker } from "../../bench/clients/frames.ts"

interface Seen {
  opcode: number
  payload: Buffer
}

/** As RFC 6455 says, and by other means than the code. */
function encode(opcode: number, payload: Buffer): Buffer {
  const { length } = payload
  if (length < 126) return Buffer.concat([Buffer.from([0x80 | opcode, length]), payload])
  if (length < 65_536)
    return Buffer.concat([Buffer.from([0x80 | opcode, 126, length >> 8, length & 0xff]), payload])
  const size = Buffer.alloc(8)
  size.writeUInt32BE(Math.floor(length / 2 ** 32), 0)
  size.writeUInt32BE(length % 2 ** 32, 4)
  return Buffer.concat([Buffer.from([0x80 | opcode, 127]), size, payload])
}

/** Hands the bytes over as a socket with one buffer does: at some place in it, and gone after the call. */
function walk(bytes: Buffer, chunkSizes: number[]): Seen[] {
  const seen: Seen[] = []
  const walker = new FrameWalker((opcode, bytes, start, end) =>
    seen.push({ opcode, payload: Buffer.from(bytes.subarray(start, end)) }),
  )
  const memory = Buffer.alloc(bytes.length + 7)
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = Math.min(chunkSizes[turn % chunkSizes.length] as number, bytes.length - at)
    const start = turn % 7
    memory.fill(0xff)
    bytes.copy(memory, start, at, at + size)
    walker.push(memory, start, start + size)
    at += size
  }
  return seen
}

const payload = fc.oneof(
  { weight: 4, arbitrary: fc.uint8Array({ maxLength: 300 }) },
  // The lengths around which the header changes its form.
  {
    weight: 2,
    arbitrary: fc
      .constantFrom(0, 1, 125, 126, 127, 65_535, 65_536, 70_000)
      .map((n) => new Uint8Array(n).fill(0x81)),
  },
)
const frame = fc.record(
  { opcode: fc.constantFrom(1, 2, 8, 9, 10), payload: payload.map((bytes) => Buffer.from(bytes)) },
  { noNullPrototype: true },
)
const chunks = fc.array(fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 100_000 })), {
  minLength: 1,
})

t.test("every frame is told once, whole and in order, however it was cut and joined", async () => {
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 12 }), chunks, (frames, sizes) => {
      const seen = walk(Buffer.concat(frames.map(({ opcode, payload }) => encode(opcode, payload))), sizes)
      return isDeepStrictEqual(seen, frames)
    }),
    { numRuns: 300 },
  )
})

t.test("a frame that is not whole is not told", async (t) => {
  const bytes = encode(1, Buffer.alloc(70_000, "x"))
  t.equal(walk(bytes.subarray(0, -1), [1_000]).length, 0)
  t.equal(walk(bytes, [1_000]).length, 1)
})
