/** A revocation: the user or the token that is refused. */

import { z } from "zod"

/** As relay.revocation_text writes it. The last that is said of a user or a jti counts. */
export const Revocation = z.object({
  kind: z.enum(["user", "jti"]),
  value: z.string(),
  /** Milliseconds since 1970; null: for ever. One that is taken back ended then. */
  until: z.number().nullable(),
  /** Only tokens that were issued before, or do not say when; null: all. Milliseconds since 1970. */
  issued_before: z.number().nullable(),
})
export type Revocation = z.infer<typeof Revocation>
