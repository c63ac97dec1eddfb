/** A relay as a process of its own, to be killed. */

import type { Test } from "tap"
import { freePort } from "../../cli/embedded/port.ts"
import { type Run, run, workDirectory } from "./command.ts"
import { SECRET } from "./relay.ts"

export interface RelayProcess {
  url: string
  /** Again, on the same port. Resolves when it is ready. */
  start(): Promise<Run>
}

/** One that is not started yet; killed with the test. */
export async function processOn(
  t: Test,
  databaseUrl: string,
  env: Record<string, string> = {},
): Promise<RelayProcess> {
  const cwd = await workDirectory(t)
  const port = await freePort()
  return {
    url: `http://127.0.0.1:${port}`,
    async start() {
      const started = run(t, cwd, ["start"], {
        DATABASE_URL: databaseUrl,
        PORT: String(port),
        JWT_SECRET: SECRET,
        DRAIN_TIMEOUT_SECONDS: "1",
        HEARTBEAT_SECONDS: "2",
        ...env,
      })
      await started.prints("ready", /"event":"ready"/)
      return started
    },
  }
}
