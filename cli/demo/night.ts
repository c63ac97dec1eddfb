/** Plays a night: all who write in it at once, each in a session of its own. */

import { randomBytes } from "node:crypto"
import type pg from "pg"
import { connect } from "../schema/database.ts"
import { importAll } from "./bulk.ts"
import { work } from "./clerk.ts"
import { Clock } from "./clock.ts"
import { type Counts, type Desk, isTime } from "./desk.ts"
import { bringLists } from "./office.ts"
import { enrol, reset } from "./register.ts"
import type { Script } from "./script.ts"
import { Tally, type Totals } from "./tally.ts"

export interface NightOptions {
  databaseUrl: string
  script: Script
  /** How long the night lasts; longer if the database cannot keep up. */
  seconds: number
  /** Empties the demo's tables before. */
  reset: boolean
  /** Called when two thirds are over, while everybody writes. */
  restart?: (() => Promise<void>) | undefined
  signal: AbortSignal
  /** Told once, when writing begins. */
  onBegin(night: Night): void
}

export interface Night {
  /** What `entered_by` ends with in its rows. */
  name: string
  /** Votes by candidate, of what is committed. */
  totals: Totals
  counts: Readonly<Counts>
  /** What has passed of it: 1 at its end. */
  part(): number
  /** What the clocks of the night show, as HH:MM. */
  time(): string
}

const CLERKS = 4
const RESTART_AT = 0.67

/** Resolves when the night is over, or has ended at the signal: then some entries are missing, or not put right yet. */
export async function play(options: NightOptions): Promise<Night> {
  const { databaseUrl, script, seconds, signal } = options
  const failed = new AbortController()
  const sessions: pg.Client[] = []
  const open = async () => {
    const session = await connect(databaseUrl)
    sessions.push(session)
    return session
  }
  try {
    const first = await open()
    if (options.reset) await reset(first)
    const desk: Desk = {
      script,
      register: await enrol(first, script.returns),
      clock: new Clock(seconds, script.hours),
      tally: new Tally(),
      counts: { entries: 0, verified: 0, corrected: 0, withdrawn: 0, pledges: 0, confirmed: 0, present: 0 },
      night: `night ${randomBytes(3).toString("hex")}`,
      signal: AbortSignal.any([signal, failed.signal]),
    }
    const { clock, counts } = desk
    const night: Night = {
      name: desk.night,
      totals: desk.tally.totals,
      counts,
      part: () => clock.now(),
      time: () => clock.at(Math.min(1, clock.now())).toTimeString().slice(0, 5),
    }
    options.onBegin(night)
    let task = 0
    const next = () => script.clerks[task++]
    const clerk = async (n: number) => work(await open(), desk, `Clerk ${n + 1}`, next)
    const works = [
      ...Array.from({ length: CLERKS }, (_, n) => clerk(n)),
      bringLists(first, desk),
      open().then((session) => importAll(session, desk)),
      restartInTime(desk, options.restart),
    ]
    for (const each of works) each.catch(() => failed.abort())
    const ended = await Promise.allSettled(works)
    for (const each of ended) if (each.status === "rejected") throw each.reason
    return night
  } finally {
    for (const session of sessions) await session.end().catch(() => {})
  }
}

async function restartInTime(desk: Desk, restart: NightOptions["restart"]): Promise<void> {
  if (restart !== undefined && (await isTime(desk, RESTART_AT))) await restart()
}
