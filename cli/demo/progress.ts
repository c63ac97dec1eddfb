/** A line of progress: in place on a terminal, one now and then elsewhere. */

import type { WriteStream } from "node:tty"

const IN_PLACE_MS = 200
const NOW_AND_THEN_MS = 10_000

/** Begins to show it. @returns what ends it, and leaves an empty line to go on in. */
export function showProgress(stream: WriteStream, line: () => string): () => void {
  const { isTTY } = stream
  const show = () => stream.write(isTTY ? `\r\x1b[K${line().slice(0, stream.columns - 1)}` : `${line()}\n`)
  const timer = setInterval(show, isTTY ? IN_PLACE_MS : NOW_AND_THEN_MS)
  return () => {
    clearInterval(timer)
    if (isTTY) stream.write("\r\x1b[K")
  }
}

export const count = (many: number | bigint): string => many.toLocaleString("en")
