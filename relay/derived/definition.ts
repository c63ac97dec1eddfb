/** What defines a derived message, and what its function may return. */

import { z } from "zod"

const MAX_LENGTH = 262_144

export const DEFINITIONS = `
  select type, channel, action, function, tables, extract(epoch from min_interval) * 1000 as "minMs",
         extract(epoch from max_age) * 1000 as "maxMs", defined_at::text as "definedAt"
  from relay.derived`

export const Definition = z.object({
  type: z.string(),
  channel: z.string(),
  action: z.string().nullable(),
  function: z.string(),
  tables: z.array(z.string()),
  minMs: z.coerce.number(),
  maxMs: z.coerce.number(),
  definedAt: z.string(),
})
export type Definition = z.infer<typeof Definition>

export const Value = z.object({
  id: z
    .string()
    .regex(/^[^\s:]{1,128}$/, "the function returned an id that no channel can have")
    .nullable(),
  data: z
    .string()
    .max(MAX_LENGTH, `the function returned a value of more than ${MAX_LENGTH} characters`)
    .nullable(),
})
