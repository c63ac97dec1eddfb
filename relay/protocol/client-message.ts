/** What a client may send, as schemas. */

import { z } from "zod"
import { FilterFields } from "./filter.ts"

/** A channel: a prefix, or a prefix and an id, such as `committee:7`. The id of a user is whatever its token says. */
export const ChannelName = z
  .string()
  .max(200)
  .regex(
    /^([a-z][a-z0-9_]{0,62}(:[^\s:]{1,128})?|user:[\s\S]{1,128})$/,
    "a channel is a name, or a name and an id, such as committee:7",
  )

const request = z.union([z.string().max(64), z.number()]).optional()
export const channels = z.array(ChannelName).min(1).max(1_000)

/** What a client may send. `request` comes back in the answer. */
export const ClientMessage = z.discriminatedUnion("type", [
  z.object({ type: z.literal("ping"), request }),
  z.object({ type: z.literal("pong"), request }),
  z
    .object({
      type: z.literal("subscribe"),
      channels: channels.optional(),
      ...FilterFields.shape,
      cursor: z.string().max(16_384).optional(),
      request,
    })
    .refine(
      ({ channels, where, types, actions }) =>
        [channels, where, types, actions].some((field) => field !== undefined),
      "name channels, or where, types or actions",
    ),
  z.object({ type: z.literal("unsubscribe"), channels, request }),
  z.object({ type: z.literal("start"), cursor: z.string().max(16_384).optional(), request }),
  z.object({ type: z.literal("authenticate"), token: z.string().max(8_192), request }),
])
export type ClientMessage = z.infer<typeof ClientMessage>

/** The `request` of a message that is otherwise wrong. */
export const requestOf = (json: unknown): string | number | undefined =>
  z.object({ request }).safeParse(json).data?.request

/** Where the first fault is, and what is expected there. */
export function describeFault({ issues: [issue] }: z.ZodError): string {
  const path = issue?.path.join(".") ?? ""
  return `${path === "" ? "" : `${path}: `}${issue?.message ?? ""}`
}
