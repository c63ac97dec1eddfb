/** Waiting for what may not come: until nothing that was committed can come any more. */

import type { Client } from "./client.ts"
import type { Database } from "./database.ts"
import type { TestRelay } from "./relay.ts"

/** Waits until everything that was committed so far has reached these clients, or passed them by. */
export async function settle(db: Database, relay: TestRelay, ...clients: Client[]): Promise<void> {
  const witness = await relay.connect({}, "?channels=nobody:else")
  // The second is in a later batch: by then all of the first has been handed to its sockets.
  for (const message of [1, 2]) {
    await db.query("select relay.broadcast('nobody:else', '1')")
    await witness.count(message)
  }
  witness.socket.close()
  await witness.closed
  await Promise.all(
    clients.map((client, index) => {
      const request = `settle ${index} ${client.messages.length}`
      client.send({ type: "ping", request })
      return client.first("pong", (message) => message.request === request)
    }),
  )
}
