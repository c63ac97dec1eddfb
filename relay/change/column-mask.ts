/** Column masks: which columns only certain roles may see, and what the others see of a row. Pure. */

import type { Meta } from "./change.ts"
import type { Row } from "./row.ts"
import { valueIn } from "./row-values.ts"
import { NULL, type Value } from "./scalar.ts"

/** The columns of a table that are hidden. */
export interface Mask {
  readonly columns: ReadonlySet<string>
  /** Equal for equal masks of a table. */
  readonly key: string
}

/** Shows everything. */
export const NO_MASK: Mask = { columns: new Set(), key: "" }

/** By the roles of a lane, which are one set for all its connections. */
const masks = new WeakMap<Meta, WeakMap<ReadonlySet<string>, Mask>>()

/** What is hidden from exactly these roles. */
export function maskOf(meta: Meta, roles: ReadonlySet<string>): Mask {
  if (meta.restricted.length === 0) return NO_MASK
  let known = masks.get(meta)
  if (known === undefined) {
    known = new WeakMap()
    masks.set(meta, known)
  }
  let mask = known.get(roles)
  if (mask === undefined) {
    mask = makeMask(meta, roles)
    known.set(roles, mask)
  }
  return mask
}

function makeMask({ restricted }: Meta, roles: ReadonlySet<string>): Mask {
  const columns = restricted.filter(([, may]) => !may.some((role) => roles.has(role))).map(([name]) => name)
  return columns.length === 0 ? NO_MASK : { columns: new Set(columns), key: JSON.stringify(columns) }
}

/** Whether the column is hidden from some roles. */
export const isRestricted = ({ restricted }: Meta, column: string): boolean =>
  restricted.some(([name]) => name === column)

/** A value as it is shown: null, as for a missing column, if it is hidden. */
export const shown = (row: Row, column: string, { columns }: Mask): Value =>
  columns.has(column) ? NULL : valueIn(row, column)

/** The JSON text of a row without its hidden columns; each value as PostgreSQL wrote it. */
export function shownText(row: Row, { columns }: Mask): string {
  const fields: string[] = []
  for (const [name, raw] of row) if (!columns.has(name)) fields.push(`${JSON.stringify(name)}:${raw}`)
  return `{${fields.join(",")}}`
}
