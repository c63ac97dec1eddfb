/** A position in the changelog: what was visible at one moment. Pure: no clock, no I/O. */

/** A pg_snapshot: xids below xmax are decided, except those in flight. */
export interface Snapshot {
  readonly xmin: bigint
  readonly xmax: bigint
  readonly inFlight: ReadonlySet<bigint>
  /** As PostgreSQL writes it: `xmin:xmax:xip,xip`. */
  readonly text: string
}

/** A snapshot of one lineage. On the wire `<lineage>:<snapshot>`, opaque to clients. */
export interface Cursor {
  readonly lineage: string
  readonly snapshot: Snapshot
}

const SNAPSHOT = /^(\d{1,20}):(\d{1,20}):((?:\d{1,20}(?:,\d{1,20})*)?)$/

/**
 * Reads a pg_snapshot's text. Its xmin is the first xid in flight, or xmax: one that somebody has made up further back
 * says nothing, and what is read is the same as the true one.
 * @returns undefined if it is none: what is read here, PostgreSQL reads too.
 */
export function parseSnapshot(text: string): Snapshot | undefined {
  const match = SNAPSHOT.exec(text)
  if (match === null) return undefined
  const xmin = BigInt(match[1] as string)
  const xmax = BigInt(match[2] as string)
  const inFlight = match[3] === "" ? [] : (match[3] as string).split(",").map(BigInt)
  let least = xmin
  for (const xid of inFlight) {
    if (xid < least || xid >= xmax) return undefined
    least = xid + 1n
  }
  if (xmin === 0n || xmin > xmax) return undefined
  return snapshotOf(xmax, inFlight)
}

/** Reads a cursor's text. @returns undefined if it is malformed, whatever a client sent. */
export function parseCursor(text: string): Cursor | undefined {
  const match = /^([0-9a-z]{1,32}):(.{1,65536})$/.exec(text)
  const snapshot = match === null ? undefined : parseSnapshot(match[2] as string)
  return snapshot === undefined ? undefined : { lineage: match?.[1] as string, snapshot }
}

/** The cursor's text. */
export const cursorText = (cursor: Cursor): string => `${cursor.lineage}:${cursor.snapshot.text}`

/** Whether everything that is decided in `other` is decided in `snapshot`. The SQL twin is relay.contains. */
export function contains(snapshot: Snapshot, other: Snapshot): boolean {
  if (snapshot.xmax < other.xmax) return false
  for (const xid of snapshot.inFlight) if (xid < other.xmax && !other.inFlight.has(xid)) return false
  return true
}

/** Whether a transaction's changes are part of the position. */
export const visible = (snapshot: Snapshot, xid: bigint): boolean =>
  xid < snapshot.xmax && !snapshot.inFlight.has(xid)

/** What is visible in either: the position of a client at `a` that was then sent everything up to `b`. */
export function union(a: Snapshot, b: Snapshot): Snapshot {
  if (contains(a, b)) return a
  if (contains(b, a)) return b
  const [younger, older] = a.xmax >= b.xmax ? [a, b] : [b, a]
  const inFlight = [...younger.inFlight].filter((xid) => !visible(older, xid))
  return snapshotOf(younger.xmax, inFlight)
}

/** What is visible in both: a read from there brings everything that is missing at `a` or at `b`. */
export function intersection(a: Snapshot, b: Snapshot): Snapshot {
  if (contains(a, b)) return b
  if (contains(b, a)) return a
  const [younger, older] = a.xmax >= b.xmax ? [a, b] : [b, a]
  const inFlight = new Set(older.inFlight)
  for (const xid of younger.inFlight) if (xid < older.xmax) inFlight.add(xid)
  return snapshotOf(older.xmax, [...inFlight])
}

function snapshotOf(xmax: bigint, inFlight: readonly bigint[]): Snapshot {
  const sorted = [...inFlight].sort((x, y) => (x < y ? -1 : 1))
  const xmin = sorted[0] ?? xmax
  return { xmin, xmax, inFlight: new Set(sorted), text: `${xmin}:${xmax}:${sorted.join(",")}` }
}
