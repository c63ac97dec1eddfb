/** The definition of a derived message, and what its function may return. */

import { z } from "zod"

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

/** What no other definition has at the same time. */
export const nameOf = ({ type, channel }: Definition): string => `${type} ${channel}`

const MAX_LENGTH = 262_144

/** A row that the function returned. */
export const ReturnedRow = z.object({
  id: z
    .string()
    .regex(/^[^\s:]{1,128}$/, "the function returned an id that no channel can have")
    .nullable(),
  data: z
    .string()
    .max(MAX_LENGTH, `the function returned a value of more than ${MAX_LENGTH} characters`)
    .nullable(),
})
export type ReturnedRow = z.infer<typeof ReturnedRow>
