/** Owns the file a PostgreSQL server writes its log to, and what to quote of it when the server fails. */

import { constants } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { dirname, join } from "node:path"

const TAIL_LINES = 15
const TAIL_BYTES = 16_384

/** Where the log is unless somebody says otherwise. */
export const besideData = (dataDir: string): string => join(dirname(dataDir), "postgres.log")

/** Opens the log to append to it, as a private file of this user. */
export const openJournal = (file: string): Promise<FileHandle> =>
  open(file, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)

/** The last lines of what was written behind that byte; nothing when there is no log. */
export async function lastLines(file: string, from: number): Promise<string> {
  const log = await open(file, "r").catch(() => undefined)
  if (!log) return ""
  try {
    const { size } = await log.stat()
    const start = Math.max(from, size - TAIL_BYTES)
    const { buffer, bytesRead } = await log.read(
      Buffer.alloc(Math.max(0, size - start)),
      0,
      Math.max(0, size - start),
      start,
    )
    return buffer.toString("utf8", 0, bytesRead).trimEnd().split("\n").slice(-TAIL_LINES).join("\n")
  } finally {
    await log.close()
  }
}
