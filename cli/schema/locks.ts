/** Locks on tables that writers use: waited for briefly, again and again. */

import { ConfigError } from "../../relay/config.ts"

/**
 * How long a lock may be waited for, with writers queueing behind it. Well below deadlock_timeout (1 s): two tables are
 * locked one after the other, and it must be the installer that gives up, never a writer.
 */
export const LOCK_TIMEOUT = "100ms"
const LOCK_ATTEMPTS = 60

export async function retryLocks<T>(
  work: () => Promise<T>,
  recover: () => Promise<unknown> = async () => {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      await recover()
      const code = (error as { code?: string }).code
      if (code !== "55P03" && code !== "40P01") throw error
      if (attempt === LOCK_ATTEMPTS)
        throw new ConfigError(
          "a table could not be locked: some transaction holds it all the time; try again later",
          { cause: error },
        )
      await new Promise((resolve) => setTimeout(resolve, 50 + Math.random() * 400))
    }
  }
}
