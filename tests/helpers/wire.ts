/** A client's socket in the hands of a test: it takes everything, or nothing until it drains. */

import type { Wire } from "../../relay/fanout/wire.ts"
import { readFrames } from "./frame.ts"

export class FakeWire implements Wire {
  queued = 0
  /** Whether it takes nothing. */
  full = false
  sent = 0
  open = true
  readonly #written: Buffer[] = []

  write(frames: Buffer): void {
    this.#written.push(frames)
  }

  /** The messages that were written, in order. */
  messages(): Array<Record<string, unknown>> {
    return readFrames(Buffer.concat(this.#written)).map(({ payload }) => JSON.parse(payload.toString()))
  }

  /** The messages in short: a payload, the cursor of a checkpoint, or else the type. */
  read(): unknown[] {
    return this.messages().map(({ type, payload, cursor }) => payload ?? cursor ?? type)
  }

  cork(): void {}
  uncork(): void {}
  close(): void {
    this.open = false
  }
  terminate(): void {}
}

/** One that takes longer to close than a time slice lasts. */
export class SlowWire extends FakeWire {
  override close(): void {
    super.close()
    const end = performance.now() + 10
    while (performance.now() < end);
  }
}
