/** What the audit log records: an event, and whom it is about. */

import type { AuthResult } from "../access/auth.ts"
import type { Filter } from "../protocol/filter.ts"

/** A connection, or the address of what never became one. */
export interface AuditSubject {
  readonly address: string
  readonly id?: string
  /** Empty as long as it is not known. */
  readonly user?: string
  readonly filter?: Filter | undefined
}

export type AuditEvent =
  /** An upgrade. The reason is the result under which it is counted. */
  | { event: "refused"; reason: string; status: number }
  | { event: "token_refused"; reason: Extract<AuthResult, { ok: false }>["reason"] | "other_user" }
  | { event: "channels_refused"; channels: Iterable<string> }
  | { event: "connected"; channels: Iterable<string>; expiresAt: number }
  | { event: "subscribed"; channels: Iterable<string> }
  | { event: "unsubscribed"; channels: Iterable<string> }
  | { event: "renewed"; channels: Iterable<string>; expiresAt: number }
  | { event: "closed"; code: number; reason: string; by: "relay" | "client" | "nobody"; openMs: number }
