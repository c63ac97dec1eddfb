/** `commitcast demo`: an election night, invented or from a file, and its totals held against SQL and the relay. */

import type { Command } from "commander"
import { ConfigError, type Settings } from "../../relay/config.ts"
import { audit, type Relay } from "../demo/audit.ts"
import { readReturns } from "../demo/csv.ts"
import { inventNight } from "../demo/invent.ts"
import { type Night, play } from "../demo/night.ts"
import { count, showProgress } from "../demo/progress.ts"
import { type Script, scriptOf } from "../demo/script.ts"
import { readState } from "../embedded/state.ts"
import { connect } from "../schema/database.ts"
import { ALL_SETTINGS, addCommand, note as printNote, readPositive } from "./arguments.ts"
import { settingsOf } from "./settings.ts"
import { start } from "./start.ts"
import { findSecret, signToken } from "./token.ts"

export interface DemoOptions {
  /** How long the night lasts. */
  seconds: number
  /** Changes a second, about. Of a file: entries a second, instead of `seconds`. */
  speed?: number | undefined
  /** A CSV file of precinct results. */
  fromCsv?: string | undefined
  /** Empties the demo's tables before. */
  reset?: boolean | undefined
  /** Restarts the relay while everybody writes. */
  restartRelay?: boolean | undefined
  /** Ends with the night; otherwise a relay that was started goes on. */
  exit?: boolean | undefined
}

/** Where the night is played, and what is to be told of it. */
interface Stage {
  databaseUrl: string
  relayUrl: string
  restart?: (() => Promise<void>) | undefined
  signal: AbortSignal
  note(line: string): void
}

interface Plan {
  script: Script
  seconds: number
}

const SPEED = 20

/**
 * Plays the night into the embedded database: that of the commitcast that runs in the directory, or one that is started.
 * @throws ConfigError for a file that cannot be used, Error if the totals differ.
 */
export async function demo(
  given: Readonly<Settings>,
  options: DemoOptions,
  note: (line: string) => void,
): Promise<void> {
  const settings = { ...given, DATABASE_URL: undefined }
  const plan = await makePlan(options, note)
  const running = await readState(settings.COMMITCAST_DIR)
  if (running === undefined)
    return start(settings, async ({ databaseUrl, url, restart, stop, signal }) => {
      await perform(plan, options, settings, { databaseUrl, relayUrl: url, restart, signal, note })
      if (options.exit) stop()
      else if (!signal.aborted) note("  The relay goes on until Ctrl-C.")
    })
  const { database_url: databaseUrl, relay_url: relayUrl, pid } = running
  if (relayUrl === undefined)
    throw new ConfigError(`the commitcast in ${settings.COMMITCAST_DIR} is not ready yet: try again`)
  if (options.restartRelay)
    throw new ConfigError(`--restart-relay needs a relay of the demo's own: end process ${pid} first`)
  const stopped = new AbortController()
  process.once("SIGINT", () => stopped.abort())
  process.once("SIGTERM", () => stopped.abort())
  note(`  The night is played into the running ${relayUrl}`)
  await perform(plan, options, settings, { databaseUrl, relayUrl, signal: stopped.signal, note })
}

async function makePlan({ fromCsv, seconds, speed }: DemoOptions, note: Stage["note"]): Promise<Plan> {
  if (fromCsv === undefined) return { script: inventNight(seconds * (speed ?? SPEED)), seconds }
  const { returns, skipped } = await readReturns(fromCsv)
  const { elections, candidates, committees, entries } = returns
  note(
    `  ${fromCsv}: ${count(entries)} entries of ${count(committees.length)} committees, ` +
      `for ${count(candidates.length)} candidates in ${count(elections.length)} elections` +
      (skipped === 0 ? "" : `; ${count(skipped)} rows skipped, which are totals, undervotes and the like`),
  )
  return { script: scriptOf(returns), seconds: speed === undefined ? seconds : entries / speed }
}

async function perform(
  { script, seconds }: Plan,
  { reset = false, restartRelay = false }: DemoOptions,
  settings: Readonly<Settings>,
  { databaseUrl, relayUrl, restart, signal, note }: Stage,
): Promise<void> {
  const describe = ({ part, time, counts: { entries, ...others } }: Night) => {
    const figures = Object.entries(others).filter(([, many]) => many > 0)
    return [
      `  ${time()} ${Math.min(100, Math.floor(part() * 100))} %: ${count(entries)} of ${count(script.returns.entries)} entries`,
      ...figures.map(([what, many]) => `${count(many)} ${what}`),
    ].join(", ")
  }
  let endProgress = () => {}
  const night = await play({
    databaseUrl,
    script,
    seconds,
    reset,
    restart: restartRelay ? restart : undefined,
    signal,
    onBegin(begun) {
      endProgress = showProgress(process.stderr, () => describe(begun))
    },
  }).finally(() => endProgress())
  note(describe(night))
  const client = await connect(databaseUrl)
  try {
    await audit(client, night, await findRelay(settings, relayUrl, note), signal, note)
  } finally {
    await client.end()
  }
}

/** The relay, if we can sign a token for it. */
async function findRelay(
  settings: Readonly<Settings>,
  relayUrl: string,
  note: Stage["note"],
): Promise<Relay | undefined> {
  try {
    const token = signToken(await findSecret(settings), settings, { user: "demo", expires: "1h" })
    return { url: new URL(settings.WS_PATH, relayUrl).href, token }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    note(`  What the relay tells is not looked at: ${error.message}`)
    return undefined
  }
}

const HELP = `
Clerks enter, correct, verify and withdraw, lists come with each hour by COPY, some committees are imported in bulk under
relay.bulk_load. At the end the votes that were counted are held against those in the table, and the table against the results
that the relay tells; where they differ it says so and exits with 1. DATABASE_URL is not used.

Of a file, office and district make an election, the precinct is the committee, party is not kept. Rows whose office, candidate or
precinct is a total, undervotes, overvotes, blanks, ballots cast or registered voters are skipped, by the whole name.`

export function addDemo(program: Command): void {
  addCommand(
    program,
    "demo",
    "play an election night into the embedded PostgreSQL, with a relay if none runs yet, and check its totals",
    ALL_SETTINGS.filter((name) => name !== "DATABASE_URL"),
  )
    .option("--seconds <n>", "how long the night lasts", readPositive, 300)
    .option(
      "--speed <n>",
      "changes a second, about: 20; with --from-csv entries a second, instead of --seconds",
      readPositive,
    )
    .option(
      "--from-csv <file>",
      "real results: a CSV file with office, district, candidate, party, precinct, votes",
    )
    .option("--reset", "empty the demo's tables first; otherwise the night adds to what is there")
    .option("--restart-relay", "restart the relay in the middle of the counting")
    .option("--exit", "end with the night; otherwise a relay that was started goes on until Ctrl-C")
    .addHelpText("after", HELP)
    .action((options) => demo(settingsOf(options), options, printNote))
}
