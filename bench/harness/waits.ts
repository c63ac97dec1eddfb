/** What writers wait for: PostgreSQL's own word for it, asked again and again while they write. */

import { setTimeout as sleep } from "node:timers/promises"
import type pg from "pg"
import { z } from "zod"

const EVERY_MS = 20
/** Fewer do not count. */
const LEAST_SHARE = 0.01

const Waits = z.array(z.object({ event: z.string(), backends: z.coerce.number() }))

export interface WaitWatch {
  /** @returns the waits with their shares of the time of all writers, the largest first. */
  stop(): Promise<string>
}

/** Watches the sessions of pgbench; it must be allowed to see them. */
export function watchWaits(session: pg.Client): WaitWatch {
  const counts = new Map<string, number>()
  let over = false
  const watching = (async () => {
    while (!over) {
      const { rows } = await session.query(
        `select coalesce(wait_event_type || ' ' || wait_event, 'none, at work') as event, count(*) as backends
         from pg_stat_activity where application_name = 'pgbench' and state = 'active' group by 1`,
      )
      for (const { event, backends } of Waits.parse(rows))
        counts.set(event, (counts.get(event) ?? 0) + backends)
      await sleep(EVERY_MS)
    }
  })()
  return {
    async stop() {
      over = true
      await watching
      const all = [...counts.values()].reduce((sum, count) => sum + count, 0)
      return [...counts]
        .filter(([, count]) => count / all >= LEAST_SHARE)
        .sort(([, one], [, other]) => other - one)
        .map(([event, count]) => `${event} ${Math.round((count / all) * 100)} %`)
        .join(", ")
    },
  }
}
