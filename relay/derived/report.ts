/** The report of a derived message: how it stands, as operations see it. */

import { z } from "zod"

export const DerivedReport = z.object({
  type: z.string(),
  channel: z.string(),
  function: z.string(),
  /** How many it has now: one for each id that the function returns. */
  values: z.number(),
  /** Null until it was computed once. */
  computed_seconds_ago: z.number().nullable(),
  took_ms: z.number().nullable(),
  error: z.string().nullable(),
})
export type DerivedReport = z.infer<typeof DerivedReport>
