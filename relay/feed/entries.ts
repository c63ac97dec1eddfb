/** Entries: rows of the log by what they are. No row, whoever wrote it, ends the read: one that cannot be read is passed over. */

import { z } from "zod"
import { type Change, type LogRow, readChange, type TableChange } from "../change/change.ts"
import { Revocation } from "../change/revocation.ts"
import { TimeSlice } from "../lib/time-slice.ts"
import type { TableWhat, What, Whats } from "./what.ts"

/** A row of the log, as PostgreSQL's text. */
export interface RawRow {
  readonly seq: string | null
  readonly xid: string
  readonly at: string | null
  readonly what: string | null
  readonly data: string | null
  /** Its data was left behind. */
  readonly tooLarge: boolean
}

/** Why a row cannot be read. Never what is in it. */
export type Fault = "unknown" | "malformed" | "too_large" | "encoding"

export interface UnreadableRow {
  readonly seq: string | null
  /** Null if nothing says which. */
  readonly table: string | null
  readonly fault: Fault
}

/** Rows of the log, by what they are. */
export interface Entries {
  readonly changes: readonly Change[]
  readonly revocations: Revocation[]
  /** Written by relays that wait for them to come back. */
  readonly canaries: string[]
}

export interface ReadRows extends Entries {
  /** Passed over. Whoever could have seen one finds a `bulk_load` among the changes instead. */
  readonly unreadable: UnreadableRow[]
}

export interface EntriesDeps {
  whats: Whats
  /** The revocations that are in force. */
  revocations(): Promise<Revocation[]>
  /** The database has no encoding: a text may stand for bytes that were lost. */
  lossy: boolean
}

export const noEntries = (): Entries & { changes: Change[] } => ({
  changes: [],
  revocations: [],
  canaries: [],
})

/** Reads rows, in slices. */
export async function readEntries(rows: readonly RawRow[], deps: EntriesDeps): Promise<ReadRows> {
  const { whats, lossy } = deps
  const entries = noEntries()
  const passedOver: PassedOver[] = []
  await whats.learn(rows.map(({ what }) => what))
  const slice = new TimeSlice()
  for (const row of rows) {
    const what = whats.get(row.what)
    const fault = take(row, what, lossy, entries)
    if (fault !== undefined) passedOver.push({ row, what, fault, before: entries.changes.length })
    if (slice.over) await slice.turn()
  }
  return passedOver.length === 0 ? { ...entries, unreadable: [] } : makeUp(passedOver, entries, deps)
}

/** A row that cannot be read, and before which of the changes it came. */
interface PassedOver {
  readonly row: RawRow
  readonly what: What | undefined
  readonly fault: Fault
  readonly before: number
}

const LOST = "\uFFFD"
/** In UTC and ISO, as the session has it; not infinite, and not before Christ. */
const TIME = /^\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00$/
const Canary = z.string()

/** Adds a row to the entries. @returns why it cannot be read. */
function take(
  row: RawRow,
  what: What | undefined,
  lossy: boolean,
  entries: ReturnType<typeof noEntries>,
): Fault | undefined {
  const { seq, xid, at, data, tooLarge } = row
  if (what === undefined) return "unknown"
  if (tooLarge) return "too_large"
  if (lossy && data?.includes(LOST)) return "encoding"
  try {
    switch (what.kind) {
      case "broken":
        return "unknown"
      case "revocation":
        entries.revocations.push(Revocation.parse(JSON.parse(data ?? "")))
        return undefined
      case "canary":
        entries.canaries.push(Canary.parse(JSON.parse(data ?? "")))
        return undefined
      case "change": {
        if (seq === null || at === null || !TIME.test(at)) return "malformed"
        const { table, type, op, oversize, meta } = what
        const change = readChange({ seq, xid, at, table, type, op, oversize, meta, data })
        entries.changes.push(change)
        return undefined
      }
    }
  } catch {
    return "malformed"
  }
}

/**
 * Tells whoever could have seen a row that cannot be read to load again, once a table: its own, or all where nothing says
 * which. A message has nobody to tell: whom it was for is in what cannot be read, and there is nothing to load.
 */
async function makeUp(
  passedOver: readonly PassedOver[],
  entries: Entries,
  deps: EntriesDeps,
): Promise<ReadRows> {
  const { changes, canaries } = entries
  const isUnknown = ({ what }: PassedOver) => what === undefined || what.kind === "broken"
  const all = passedOver.some(isUnknown) ? await deps.whats.tables() : []
  // It may have been one: those that are in force are all that counts.
  const revoked = passedOver.some((one) => isUnknown(one) || one.what?.kind === "revocation")
  const told = new Set<string>()
  const made: Change[] = []
  let from = 0
  for (const { row, what, before } of passedOver) {
    made.push(...changes.slice(from, before))
    from = before
    for (const one of concerned(what, all)) {
      if (!told.has(one.table)) made.push(bulkLoad(row, one))
      told.add(one.table)
    }
  }
  return {
    changes: [...made, ...changes.slice(from)],
    revocations: revoked ? [...entries.revocations, ...(await deps.revocations())] : entries.revocations,
    canaries,
    unreadable: passedOver.map(({ row, what, fault }) => ({ seq: row.seq, table: tableOf(what), fault })),
  }
}

const tableOf = (what: What | undefined): string | null =>
  what !== undefined && "table" in what ? what.table : null

/** The tables that a row may have been of. */
function concerned(what: What | undefined, all: readonly TableWhat[]): readonly TableWhat[] {
  if (what?.kind === "revocation" || what?.kind === "canary") return []
  if (what?.kind === "change") return what.table === null ? [] : [{ ...what, table: what.table }]
  const table = what?.table ?? null
  const same = all.filter((one) => one.table === table)
  return same.length > 0 ? same : all
}

function bulkLoad(row: RawRow, { table, type, meta }: TableWhat): TableChange {
  const at = row.at !== null && TIME.test(row.at) ? row.at : EPOCH
  const told: LogRow = {
    seq: row.seq ?? "0",
    xid: row.xid,
    at,
    table,
    type,
    op: "bulk_load",
    oversize: false,
    meta,
    data: null,
  }
  return readChange(told) as TableChange
}

/** Of a row that says no time. */
const EPOCH = "1970-01-01 00:00:00+00"
