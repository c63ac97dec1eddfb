/** The database before a relay begins: the schema is put there, as soon as it answers. */

import { setTimeout as sleep } from "node:timers/promises"
import { backoff } from "../../relay/lib/backoff.ts"
import type { Log } from "../../relay/telemetry/log.ts"
import { UnreachableError } from "./database.ts"
import { install } from "./install.ts"

/**
 * Installs what is missing, waiting for a database that does not answer yet.
 * @param signal ends the waiting.
 */
export async function installWhenReachable(
  databaseUrl: string,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      const done = await install(databaseUrl)
      if (done.state !== "present")
        log.info(
          { event: done.state, version: done.version, tracked: done.tracked },
          "the relay's schema is in the database",
        )
      for (const warning of done.warnings) log.warn({ event: "install_warning" }, warning)
      return
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error
      const delay = backoff(attempt)
      log.warn({ event: "database_down", attempt, retry_in_ms: Math.round(delay) }, error.message)
      await sleep(delay, undefined, { signal }).catch(() => {})
    }
  }
}
