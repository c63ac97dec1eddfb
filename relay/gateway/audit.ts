/**
 * The audit log: who came, what they joined, what was refused, and how they left; a JSON object a line. Apart from the
 * ordinary log, since others read it and keep it for longer. Tokens and row data never reach it.
 */

import { closeSync, fstatSync, openSync, statSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { pino } from "pino"
import { ConfigError } from "../config.ts"
import { Rate, TokenBuckets } from "../lib/token-bucket.ts"
import type { Log } from "../telemetry/log.ts"
import type { Metrics } from "../telemetry/metrics.ts"
import { type Fields, fieldsOf, type Happening, isoTime, jsonOf, type Party } from "./audit-line.ts"

// ------------------------------------------------------------------------------------------- what is told

// ------------------------------------------------------------------------------------------- how much, and where to

export interface Audit {
  tell(party: Party, happening: Happening): void
  /** Resolves once what is left is written, or cannot be. */
  close(): Promise<void>
}

/** Lines a second of those who are nobody yet, of one address and of all, and of a user beside coming and going. */
const STRANGERS_RATE = 10
const ADDRESS_RATE = 1
const USER_RATE = 5
/** How often it is told what was only counted, and looked whether the file was moved away. Milliseconds. */
const TURN_MS = 5_000
/** What waits for a disk or a reader, at the most. Bytes. */
const MAX_WAITING = 4_194_304
/** As much as a pipe takes from several processes without mixing it. Every line is shorter. Bytes. */
const MAX_WRITE = 4_096
/** How long the last lines may take. Milliseconds. */
const CLOSE_MS = 1_000
/** A failure that goes on is logged as often as this. Milliseconds. */
const LOG_MS = 60_000

export interface AuditDeps {
  /** The setting: off, stdout, or a path. */
  to: string
  log: Log
  metrics: Metrics
}

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

/** Opens it. What fails here or later is counted and tried again, and stops nobody. */
export function createAudit({ to, log, metrics }: AuditDeps): Audit {
  if (to === "off") return { tell() {}, async close() {} }
  const strangers = new Rate(STRANGERS_RATE)
  let strangersWholeAt = 0
  const addresses = new TokenBuckets(new Rate(ADDRESS_RATE))
  const users = new TokenBuckets(new Rate(USER_RATE))
  /** Those whose coming was told: their going is told too. */
  const connected = new WeakSet<Party>()
  /** What was not told one by one, by what it is. */
  const sums = new Map<string, { of: string; reason: string | undefined; times: number }>()
  let loggedAt = Number.NEGATIVE_INFINITY
  let file: { stream: ReturnType<typeof pino.destination>; fd: number } | undefined
  let dropped = false
  reopen()
  const timer = setInterval(turn, TURN_MS)
  timer.unref()

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
  function inPlace(): boolean {
    if (to === "stdout") return true
    if (file === undefined) return false
    const [there, ours] = [statSync(to, { throwIfNoEntry: false }), fstatSync(file.fd)]
    return there?.ino === ours.ino && there.dev === ours.dev
  }

  function turn(): void {
    try {
      if (!inPlace()) reopen()
    } catch (error) {
      fail(error as Error)
    }
    for (const { of, reason, times } of sums.values()) write({ event: "summed", of, reason, times })
    sums.clear()
  }

  /** Whether there is room for a line of its own. Who has come in with a token is always told, and that it left. */
  function room(party: Party, { event }: Happening): boolean {
    if (event === "connected") connected.add(party)
    if (event === "connected" || (event === "closed" && connected.delete(party))) return true
    const now = performance.now()
    if (party.user) return users.take(party.user, now)
    if (addresses.waitMs(party.address, now) > 0) return false
    const wholeAt = strangers.take(strangersWholeAt, now)
    if (wholeAt === undefined) return false
    strangersWholeAt = wholeAt
    return addresses.take(party.address, now)
  }

  function count(happening: Happening): void {
    const { event: of } = happening
    const reason = of === "refused" || of === "token_refused" ? happening.reason : undefined
    const key = `${of} ${reason}`
    sums.set(key, { of, reason, times: (sums.get(key)?.times ?? 0) + 1 })
    metrics.auditLines.inc({ result: "summed" })
  }

  function write(fields: Fields & object, { address, id, user }: Partial<Party> = {}): void {
    const { event, ...rest } = fields
    const line = { time: isoTime(), event, connection: id, user: user || undefined, address, ...rest }
    dropped = file === undefined
    file?.stream.write(`${jsonOf(line)}\n`)
    metrics.auditLines.inc({ result: dropped ? "lost" : "told" })
  }

  return {
    tell(party, happening) {
      if (room(party, happening)) write(fieldsOf(party, happening), party)
      else count(happening)
    },
    async close() {
      clearInterval(timer)
      turn()
      const stream = file?.stream
      file = undefined
      if (stream === undefined) return
      const ended = new Promise((resolve) => stream.once("close", resolve).once("error", resolve))
      stream.end()
      await Promise.race([ended, sleep(CLOSE_MS)])
      // What nobody takes must not keep the process.
      stream.destroy()
    },
  }
}
