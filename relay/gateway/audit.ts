/**
 * The audit log: who came, what they joined, what was refused, and how they left; a JSON object a line. Apart from the
 * ordinary log, since others read it and keep it for longer. Tokens and row data never reach it.
 */

import type { AuditEvent, AuditSubject } from "./audit-event.ts"
import { type AuditFileDeps, openAuditFile } from "./audit-file.ts"
import { type Fields, fieldsOf, isoTime, jsonOf } from "./audit-line.ts"
import { createAuditQuota } from "./audit-quota.ts"

export interface Audit {
  record(subject: AuditSubject, event: AuditEvent): void
  /** Resolves once what is left is written, or cannot be. */
  close(): Promise<void>
}

/** How often sums are written, and the file is looked for. Milliseconds. */
const TURN_MS = 5_000

/** Opens it. @param to the setting: off, stdout, or a path. */
export function createAudit({ to, log, metrics }: AuditFileDeps): Audit {
  if (to === "off") return { record() {}, async close() {} }
  const file = openAuditFile({ to, log, metrics })
  const quota = createAuditQuota()
  /** The events that got no line of their own, by event and reason. */
  const sums = new Map<string, { of: string; reason: string | undefined; times: number }>()
  const timer = setInterval(turn, TURN_MS)
  timer.unref()

  function turn(): void {
    file.follow()
    for (const { of, reason, times } of sums.values()) write({ event: "summed", of, reason, times })
    sums.clear()
  }

  function sum(event: AuditEvent): void {
    const { event: of } = event
    const reason = of === "refused" || of === "token_refused" ? event.reason : undefined
    const key = `${of} ${reason}`
    sums.set(key, { of, reason, times: (sums.get(key)?.times ?? 0) + 1 })
    metrics.auditLines.inc({ result: "summed" })
  }

  function write(fields: Fields & object, { address, id, user }: Partial<AuditSubject> = {}): void {
    const { event, ...rest } = fields
    const line = { time: isoTime(), event, connection: id, user: user || undefined, address, ...rest }
    const written = file.write(`${jsonOf(line)}\n`)
    metrics.auditLines.inc({ result: written ? "told" : "lost" })
  }

  return {
    record(subject, event) {
      if (quota.allows(subject, event)) write(fieldsOf(subject, event), subject)
      else sum(event)
    },
    async close() {
      clearInterval(timer)
      turn()
      await file.close()
    },
  }
}
