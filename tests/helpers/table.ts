/** A table as a client builds it from its changes. It takes each change once and in order, and says what does not fit. */

import type { Change } from "../../client/types.ts"

export interface Table {
  /** Starts with rows that were loaded. */
  load(rows: readonly Record<string, unknown>[]): void
  apply(change: Change): void
  /** The rows by id. */
  rows(): Array<Record<string, unknown>>
  /** What did not fit. */
  faults: string[]
}

export function buildTable(): Table {
  let rows = new Map<string, Record<string, unknown>>()
  const faults: string[] = []
  const fault = (change: Change, what: string) => faults.push(`${what}: ${JSON.stringify(change)}`)
  return {
    faults,
    load(loaded) {
      rows = new Map(loaded.map((row) => [String(row.id), row]))
    },
    apply(change) {
      if (!("data" in change) || change.oversize) return void fault(change, "no row")
      const id = String(change.data.id)
      const held = rows.get(id)
      switch (change.action) {
        case "create":
          if (held !== undefined) fault(change, "it is there")
          rows.set(id, change.data)
          return
        case "update":
          for (const [name, value] of Object.entries(change.before))
            if (held?.[name] !== value) fault(change, `${name} was ${held?.[name]}`)
          rows.set(id, change.data)
          return
        case "delete":
          if (held === undefined) fault(change, "it is not there")
          rows.delete(id)
      }
    },
    rows: () => [...rows.values()].sort((a, b) => Number(a.id) - Number(b.id)),
  }
}
