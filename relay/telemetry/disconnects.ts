/**
 * Disconnects: how connections ended and which upgrades were refused, by reason. The latest are kept one by one; those of
 * one reason at about the same time count as one, so that neither a flood nor a restart pushes out everything else. Reasons
 * are the relay's own names: nothing that a client chooses (channels, codes, texts) gets in.
 */

import { z } from "zod"
import { CloseCode } from "../protocol/close-code.ts"

/** `refused`: never became a connection; `closed` by the relay; `left` by itself; `cut`: the connection broke. */
const kind = {
  what: z.enum(["refused", "closed", "left", "cut"]),
  /** A close code, or the HTTP status of a refusal. Null for a code that the client chose. */
  code: z.number().nullable(),
  reason: z.string(),
}
type Kind = z.infer<z.ZodObject<typeof kind>>

const Disconnect = z.object({
  ...kind,
  /** How many happened at about the same time. */
  times: z.number(),
  first_at: z.iso.datetime(),
  last_at: z.iso.datetime(),
})
type Disconnect = z.infer<typeof Disconnect>

export const DisconnectsReport = z.object({
  /** Since the start. */
  totals: z.array(z.object({ ...kind, times: z.number() })),
  /** The newest first. */
  last: z.array(Disconnect),
})
export type DisconnectsReport = z.infer<typeof DisconnectsReport>

export interface Disconnects {
  /** An upgrade was refused. @param reason the label under which it is counted. */
  refused(status: number, reason: string): void
  /** The relay closes a connection. */
  closed(code: CloseCode): void
  /** ws closes one for this protocol error. */
  broken(fault: string): void
  /** A connection ended that neither the relay nor ws had closed. */
  ended(code: number): void
  report(): DisconnectsReport
}

/** How many are kept. */
const KEPT = 50
/** Disconnects of one kind within this time count as one. Milliseconds. */
const TOGETHER_MS = 10_000

const CLOSE_REASONS = new Map<number, string>(
  Object.entries(CloseCode).map(([name, code]) => [
    code,
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
  ]),
)
/** How clients leave; other codes are theirs to choose. */
const LEAVE_REASONS = new Map([
  [1000, "done"],
  [1001, "going_away"],
  [1005, "no_code"],
])
/** No close frame came. */
const CUT = 1006

const keyOf = ({ what, code, reason }: Kind): string => `${what} ${code} ${reason}`

export function createDisconnects(now = () => Date.now()): Disconnects {
  const totals = new Map<string, Kind & { times: number }>()
  /** The newest of each kind. */
  const latest = new Map<string, Disconnect>()
  /** The oldest first. */
  let last: Disconnect[] = []

  function note(what: Kind["what"], code: number | null, reason: string): void {
    const kind: Kind = { what, code, reason }
    const key = keyOf(kind)
    totals.set(key, { ...kind, times: (totals.get(key)?.times ?? 0) + 1 })
    const at = new Date(now()).toISOString()
    const before = latest.get(key)
    if (before !== undefined && together(before, at)) {
      before.times++
      before.last_at = at
      return
    }
    const ending: Disconnect = { ...kind, times: 1, first_at: at, last_at: at }
    latest.set(key, ending)
    last = [...last, ending].slice(-KEPT)
  }

  return {
    refused: (status, reason) => note("refused", status, reason),
    closed: (code) => note("closed", code, CLOSE_REASONS.get(code) ?? "unknown"),
    broken: (fault) => note("closed", null, fault.toLowerCase().replace(/^ws_err_/, "")),
    ended(code) {
      if (code === CUT) return note("cut", code, "no_close_frame")
      const reason = LEAVE_REASONS.get(code)
      note("left", reason === undefined ? null : code, reason ?? "own_code")
    },
    report: () => ({
      totals: [...totals.values()],
      last: newestFirst(last.map((ending) => ({ ...ending }))),
    }),
  }
}

/** In either direction: the clock may have been set back. */
const together = (ending: Disconnect, at: string): boolean =>
  Math.abs(Date.parse(at) - Date.parse(ending.first_at)) < TOGETHER_MS

/** The sum over processes: what happened in several at about the same time counts as one. */
export function sumOfDisconnects(all: readonly DisconnectsReport[]): DisconnectsReport {
  const totals = new Map<string, DisconnectsReport["totals"][number]>()
  for (const total of all.flatMap((report) => report.totals)) {
    const times = (totals.get(keyOf(total))?.times ?? 0) + total.times
    totals.set(keyOf(total), { ...total, times })
  }
  const last: Disconnect[] = []
  const latest = new Map<string, Disconnect>()
  for (const ending of all.flatMap((report) => report.last).sort(byFirst)) {
    const before = latest.get(keyOf(ending))
    if (before !== undefined && together(before, ending.first_at)) {
      before.times += ending.times
      if (ending.last_at > before.last_at) before.last_at = ending.last_at
    } else {
      const joined = { ...ending }
      latest.set(keyOf(ending), joined)
      last.push(joined)
    }
  }
  return { totals: [...totals.values()], last: newestFirst(last).slice(0, KEPT) }
}

/** By the time of the latest. */
const newestFirst = (disconnects: readonly Disconnect[]): Disconnect[] =>
  disconnects.toReversed().sort((a, b) => (a.last_at === b.last_at ? 0 : a.last_at < b.last_at ? 1 : -1))

const byFirst = (a: Disconnect, b: Disconnect): number => (a.first_at < b.first_at ? -1 : 1)
