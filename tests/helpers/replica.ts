/** A reader's copy of tables whose rows count their own versions, kept by changes, which notes whatever does not fit. */

import type { RowChange } from "../../relay/change/change.ts"

export interface Faults {
  /** Versions or rows that should have come. */
  lost: number
  /** Changes that had been applied, or whose successor had. */
  repeated: number
  /** The first few, in words. */
  examples: string[]
}

/** The version of each row, by table and id. */
export type Rows = ReadonlyMap<string, number>

export interface Replica {
  load(rows: Rows): void
  apply(change: RowChange): void
  /** Notes what differs from the tables as they are at the same moment. */
  compare(rows: Rows): void
}

/** @param version the column that an update raises by one, per table; a table without is only inserted to. */
export function createReplica(faults: Faults, version: Readonly<Record<string, string>>): Replica {
  const copy = new Map<string, number>()
  const newest = new Map<string, bigint>()

  function note(kind: "lost" | "repeated", count: number, what: string): void {
    faults[kind] += count
    if (faults.examples.length < 5) faults.examples.push(`${kind}: ${what}`)
  }

  function versionOf(table: string, image: RowChange["after"]): number | undefined {
    if (image === undefined) return undefined
    const column = version[table]
    return column === undefined ? 0 : Number(image.row.get(column))
  }

  return {
    load(rows) {
      copy.clear()
      newest.clear()
      for (const [key, value] of rows) copy.set(key, value)
    },
    apply({ table, op, id, before, after }) {
      const key = `${table}:${(after ?? before)?.row.get("id")}`
      const said = `${op} ${id} of ${key}`
      const from = versionOf(table, before)
      const to = versionOf(table, after)
      const have = copy.get(key)
      if ((newest.get(key) ?? 0n) >= BigInt(id)) note("repeated", 1, `${said} after ${newest.get(key)}`)
      newest.set(key, BigInt(id))
      if (op === "insert" && have !== undefined) note("repeated", 1, said)
      if (from !== undefined) {
        if (have === undefined) note("lost", 1, `what came before ${said}`)
        else if (have < from) note("lost", from - have, `${have} to ${from} before ${said}`)
        else if (have > from) note("repeated", 1, `${said} from ${from}, which is ${have}`)
      }
      if (to === undefined) copy.delete(key)
      else copy.set(key, to)
    },
    compare(rows) {
      for (const [key, value] of rows) {
        const have = copy.get(key)
        if (have === undefined) note("lost", 1, `the insert of ${key}`)
        else if (have < value) note("lost", value - have, `${have} to ${value} of ${key}`)
        else if (have > value) note("repeated", have - value, `${key} is ${value}, not ${have}`)
      }
      for (const key of copy.keys()) if (!rows.has(key)) note("lost", 1, `the delete of ${key}`)
    },
  }
}
