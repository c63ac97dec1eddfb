/** Changes for tests, by their images. */

import { z } from "zod"
import { type Change, LogRow, readChange as readRow } from "../../relay/change/change.ts"

const Pictured = LogRow.omit({ data: true, oversize: true }).extend({
  oversize: z.boolean().default(false),
  old: z.string().nullable().default(null),
  /** Of a message the payload. */
  new: z.string().nullable().default(null),
})
export type Pictured = z.input<typeof Pictured>

/** What is not the same for all changes of a table, and so stands in the data. */
const Facts = z.object({
  op: z.string().optional(),
  rows: z.number().optional(),
  partition: z.string().optional(),
})
const Addressed = z.object({ channel: z.string() })

/** The row of the log that shows this. A message's channel and the facts of a bulk load are given in the meta. */
export function logRow(input: unknown): LogRow {
  const { old, new: after, ...row } = Pictured.parse(input)
  const meta: unknown = JSON.parse(row.meta ?? "{}")
  switch (row.op) {
    case "message":
      return {
        ...row,
        meta: null,
        data: `{"channel": ${JSON.stringify(Addressed.parse(meta).channel)}, "payload": ${after ?? "null"}}`,
      }
    case "truncate":
    case "bulk_load": {
      const { op, rows, partition, ...rest } = z.looseObject(Facts.shape).parse(meta)
      return { ...row, meta: JSON.stringify(rest), data: JSON.stringify({ op, rows, partition }) }
    }
    default:
      return { ...row, data: `[${[old, after].filter((image) => image !== null).join(", ")}]` }
  }
}

/** The change that such a row is. */
export const readChange = (input: unknown): Change => readRow(logRow(input))
