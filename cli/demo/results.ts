/** What a relay makes of it: the results that it derives, as its clients are told them. */

import { WebSocket } from "ws"
import { z } from "zod"
import { connect } from "../../client/client.ts"
import type { Totals } from "./tally.ts"

export interface Results {
  /** The latest that were told, of all elections. */
  readonly totals: Totals
  /** Rejects if the relay does not let us in. */
  readonly refused: Promise<never>
  close(): void
}

const Told = z.object({
  action: z.literal("results"),
  data: z.object({ candidates: z.array(z.object({ candidate_id: z.int(), votes: z.int() })) }),
})

/** Follows a relay. @param url as http:// or ws://, with the path of its endpoint. @param token one that sees everything. */
export function followResults(url: string, token: string): Results {
  const totals = new Map<number, bigint>()
  // What is derived passes a filter by its type; the rows themselves, whose actions are others, need not come.
  const feed = connect({ url, token, WebSocket, types: ["voting_update"], actions: ["truncate"] })
  feed.on("derived", (message) => {
    const told = Told.safeParse(message)
    if (!told.success) return
    for (const { candidate_id, votes } of told.data.data.candidates) totals.set(candidate_id, BigInt(votes))
  })
  const refused = new Promise<never>((_, reject) => {
    feed.on("error", (error) => {
      if (error.code === "refused") reject(error)
    })
  })
  refused.catch(() => {})
  return { totals, refused, close: () => feed.close() }
}
