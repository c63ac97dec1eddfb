/**
 * Where log lines go: standard error, without waiting for it. A line that cannot be written is lost and counted, and
 * stops nobody: a disk is full at times, and whoever reads a pipe may end, or read no more.
 */

import { write, writeSync } from "node:fs"

/** What waits for a disk or a reader, at the most. Bytes. */
const MAX_WAITING = 1_048_576
/** Between two attempts on a pipe that is full. Milliseconds. */
const RETRY_MS = 50

export interface LogLoss {
  /** Lines that were not written, since the start. */
  lines: number
  /** Why the last one was not; null if it was. */
  error: string | null
}

export class LogOutput {
  readonly #fd: number
  readonly #lost: LogLoss = { lines: 0, error: null }
  #waiting: string[] = []
  #bytes = 0
  /** What is being written, and how much of it is. */
  #chunk: { data: Buffer; lines: number } | undefined
  readonly #onExit = () => this.#flush()

  constructor(fd = 2) {
    this.#fd = fd
  }

  get lost(): Readonly<LogLoss> {
    return this.#lost
  }

  write(line: string): void {
    if (this.#bytes > MAX_WAITING) return this.#lose(1, "what reads the log does not read")
    this.#waiting.push(line)
    this.#bytes += Buffer.byteLength(line)
    if (this.#chunk !== undefined) return
    process.on("exit", this.#onExit)
    this.#next()
  }

  #next(): void {
    if (this.#waiting.length === 0) {
      process.off("exit", this.#onExit)
      return
    }
    this.#chunk = { data: Buffer.from(this.#waiting.join("")), lines: this.#waiting.length }
    this.#waiting = []
    this.#send(this.#chunk)
  }

  #send(chunk: { data: Buffer; lines: number }): void {
    write(this.#fd, chunk.data, (error, written) => {
      if (error?.code === "EAGAIN") {
        setTimeout(() => this.#send(chunk), RETRY_MS).unref()
        return
      }
      this.#bytes -= error ? chunk.data.length : written
      chunk.data = chunk.data.subarray(written)
      if (!error && chunk.data.length > 0) return this.#send(chunk)
      if (error) this.#lose(chunk.lines, error.code ?? error.message)
      else this.#lost.error = null
      this.#chunk = undefined
      this.#next()
    })
  }

  #lose(lines: number, error: string): void {
    this.#lost.lines += lines
    this.#lost.error = error
  }

  /** Nothing runs after the end of the process: what still waits is written at once, as far as it can be. */
  #flush(): void {
    try {
      writeSync(this.#fd, this.#waiting.join(""))
    } catch {
      // Nobody is there to be told.
    }
  }
}
