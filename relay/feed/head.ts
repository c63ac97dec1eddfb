/** The head of a read: what is true of the rows beside it. */

import { parseSnapshot, type Snapshot } from "../change/cursor.ts"
import { type Identity, SLOTS, type Slot } from "./queries.ts"

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

/** Reads the head. @throws if there is none, or the log is another one than at the start of the session. */
export function readHead(text: string | null | undefined, { number }: Identity): Head & { place: Place } {
  const [lineage, version, state, ahead, snapshot, horizon] = (text ?? "").split("|")
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
export const readNewest = (text: string | null | undefined): bigint =>
  BigInt((text ?? "").split("|")[6] ?? "")

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
