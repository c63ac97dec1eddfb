/** The head of a read: what is true of the rows beside it. */

import { parseSnapshot, type Snapshot } from "../change/cursor.ts"
import type { Values } from "./log-query.ts"
import { type Identity, SLOTS, type Slot, TORN } from "./queries.ts"

/** What one read shows beside the changes. */
export interface Head {
  readonly snapshot: Snapshot
  readonly horizon: Snapshot
  /** How much longer some relay has promised to poll, in milliseconds: 0 if that is over or void, null if none has. */
  readonly leaseMs: number | null
}

/** Where rows were when the read began. */
export interface Place {
  /** The table that writers fill. */
  readonly slot: Slot
  /** The version of relay.horizon, which each rotation makes anew. */
  readonly horizon: string
}

/** A lease further ahead was set by a clock that has stepped since. */
const LEASE_MAX_MS = 5_000
/** Of relay.state: while some relay polls. */
const POLLED = 4

/**
 * Reads the head, which is the first row of a read.
 * @throws if there is none, or the log is another one than at the start of the session; nothing of the row is in the message.
 */
export function readHead(row: Values | undefined, { number }: Identity): Head & { place: Place } {
  const [, xid, , , text] = row ?? []
  // What has an xid is a row of the log, which has come first for want of a head.
  if (typeof text !== "string" || xid !== null)
    throw new Error(
      "the row of relay.horizon is missing, or hidden by row level security: commitcast install puts it back; as the owner, alter table relay.horizon disable row level security",
    )
  const [lineage, version, state, ahead, snapshot, horizon] = text.split("|")
  if (lineage === String(TORN))
    throw new Error(
      "a part of the changelog was emptied, deleted from or replaced by hand: a new lineage begins",
    )
  // The log was made anew or restored while this session was open, which finds its tables by name. Or it is being
  // restored in parts right now.
  if (lineage !== number) throw new Error("the changelog is another one than at the start of the session")
  const bits = Number(state)
  return {
    snapshot: readSnapshot(snapshot),
    horizon: readHorizon(horizon),
    leaseMs: (bits & POLLED) === 0 ? null : leaseLeft(ahead ?? ""),
    place: { slot: SLOTS[bits % (SLOTS.length + 1)] ?? 0, horizon: version ?? "" },
  }
}

export const samePlace = (one: Place, other: Place): boolean =>
  one.slot === other.slot && one.horizon === other.horizon

function leaseLeft(ahead: string): number {
  if (ahead === "" || Number(ahead) > LEASE_MAX_MS) return 0
  return Math.max(0, Number(ahead))
}

/** The newest `seq` that was given out, of the head of a read in pages; its transaction may still be open. */
export const readNewest = (row: Values | undefined): bigint => BigInt(row?.[4]?.split("|")[6] ?? "")

/** The same for reads without number. */
let latest: Snapshot | undefined

function readHorizon(text: string | undefined): Snapshot {
  if (latest === undefined || latest.text !== text) latest = readSnapshot(text)
  return latest
}

/** @throws if it is none. */
export function readSnapshot(text: string | undefined): Snapshot {
  const snapshot = parseSnapshot(text ?? "")
  if (snapshot === undefined) throw new Error("PostgreSQL answered something that is not a snapshot")
  return snapshot
}
