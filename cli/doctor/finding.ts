/** A finding: what one look has found, and what to do. */

import type pg from "pg"

export type Verdict = "ok" | "warning" | "failure"

export interface Finding {
  /** What was looked at, in a word or two. */
  of: string
  verdict: Verdict
  text: string
  /** What to do, where something is to be done. */
  remedy?: string
}

/** What is looked at. */
export interface Patient {
  client: pg.Client
  databaseUrl: string
  retentionHours: number
  retentionMb: number
  /** A transaction that is open for longer is named. */
  longSeconds: number
}

/** @throws what PostgreSQL refuses; the doctor says so and goes on with the next. */
export type Check = (patient: Patient) => Promise<Finding[]>

export const ok = (of: string, text: string): Finding => ({ of, verdict: "ok", text })
export const warning = (of: string, text: string, remedy: string): Finding => ({
  of,
  verdict: "warning",
  text,
  remedy,
})
export const failure = (of: string, text: string, remedy: string): Finding => ({
  of,
  verdict: "failure",
  text,
  remedy,
})

/** The findings, or that all is well. */
export const orOk = (findings: Finding[], of: string, text: string): Finding[] =>
  findings.length === 0 ? [ok(of, text)] : findings
