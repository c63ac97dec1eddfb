/** The file of the audit log, or the standard output. What fails is counted and tried again, and stops nobody. */

import { closeSync, fstatSync, openSync, statSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { pino } from "pino"
import { ConfigError } from "../config.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"

export interface AuditFileDeps {
  /** `stdout`, or a path. */
  to: string
  log: Log
  metrics: Metrics
}

export interface AuditFile {
  /** @returns false if the line is lost: there is no file, or too much waits for it. */
  write(line: string): boolean
  /** Opens the path anew if the file was moved away. */
  follow(): void
  /** Resolves once what is left is written, or cannot be. */
  close(): Promise<void>
}

/** What waits for a disk or a reader, at the most. Bytes. */
const MAX_WAITING = 4_194_304
/** As much as a pipe takes from several processes without mixing it. Every line is shorter. Bytes. */
const MAX_WRITE = 4_096
/** How long the last lines may take. Milliseconds. */
const CLOSE_MS = 1_000
/** A failure that goes on is logged as often as this. Milliseconds. */
const LOG_MS = 60_000

const open = (path: string): number => openSync(path, "a", 0o600)

/** @throws ConfigError if the setting names a file that cannot be written. */
export function checkAuditLog(to: string): void {
  if (to === "off" || to === "stdout") return
  try {
    closeSync(open(to))
  } catch (error) {
    throw new ConfigError(
      `AUDIT_LOG (--audit-log) cannot be written: ${(error as NodeJS.ErrnoException).code} ${to}`,
    )
  }
}

export function openAuditFile({ to, log, metrics }: AuditFileDeps): AuditFile {
  let loggedAt = Number.NEGATIVE_INFINITY
  let file: { stream: ReturnType<typeof pino.destination>; fd: number } | undefined
  let dropped = false
  reopen()

  function fail(error: Error): void {
    metrics.auditFailures.inc()
    if (performance.now() - loggedAt < LOG_MS) return
    loggedAt = performance.now()
    log.error({ event: "audit_failed", error: error.message }, "the audit log cannot be written")
  }

  function reopen(): void {
    const before = file
    try {
      const fd = to === "stdout" ? 1 : open(to)
      const stream = pino.destination({ dest: fd, sync: false, maxLength: MAX_WAITING, maxWrite: MAX_WRITE })
      stream.on("error", fail)
      stream.on("drop", () => {
        dropped = true
      })
      file = { stream, fd }
    } catch (error) {
      return fail(error as Error)
    }
    before?.stream.once("error", () => before.stream.destroy()).end()
  }

  /** Whether the file that is written to is the one at the path. */
  function isInPlace(): boolean {
    if (to === "stdout") return true
    if (file === undefined) return false
    const [atPath, ours] = [statSync(to, { throwIfNoEntry: false }), fstatSync(file.fd)]
    return atPath?.ino === ours.ino && atPath.dev === ours.dev
  }

  return {
    write(line) {
      dropped = file === undefined
      file?.stream.write(line)
      return !dropped
    },
    follow() {
      try {
        if (!isInPlace()) reopen()
      } catch (error) {
        fail(error as Error)
      }
    },
    async close() {
      const stream = file?.stream
      file = undefined
      if (stream === undefined) return
      const ended = new Promise((resolve) => stream.once("close", resolve).once("error", resolve))
      stream.end()
      await Promise.race([ended, sleep(CLOSE_MS)])
      // Lines that nobody takes must not keep the process.
      stream.destroy()
    },
  }
}
