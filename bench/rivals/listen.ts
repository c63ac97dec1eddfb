/** How every rival hears of a row: a session that LISTENs. */

import { COPY_CHANNEL, openSession } from "../harness/session.ts"

/** Calls back with the payload of each notification. */
export async function listen(heard: (payload: string) => void): Promise<void> {
  const session = await openSession(process.env.DATABASE_URL as string)
  session.on("notification", ({ payload = "" }) => heard(payload))
  session.on("end", () => process.exit(1))
  await session.query(`listen ${COPY_CHANNEL}`)
}
