/** The values of rows that somebody compares with: each is read once, for as long as the row is kept. */

import type { Row } from "./row.ts"
import { readValue, type Value } from "./scalar.ts"

const read = new WeakMap<Row, Map<string, Value>>()

/** A row's value in a column; null if it has none. */
export function valueIn(row: Row, column: string): Value {
  let values = read.get(row)
  if (values === undefined) {
    values = new Map()
    read.set(row, values)
  }
  let value = values.get(column)
  if (value === undefined) {
    value = readValue(row.get(column))
    values.set(column, value)
  }
  return value
}
