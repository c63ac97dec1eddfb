/** A revocation: the user or the token that is refused. */

import { z } from "zod"

/** As relay.revocation_text writes it. The latest one for a user or a jti counts. */
export const Revocation = z.object({
  kind: z.enum(["user", "jti"]),
  value: z.string(),
  /** Milliseconds since 1970; null: for ever. One that was taken back ended at that time. */
  until: z.number().nullable(),
  /** Only tokens issued before this, or without an issue time; null: all. Milliseconds since 1970. */
  issued_before: z.number().nullable(),
})
export type Revocation = z.infer<typeof Revocation>
