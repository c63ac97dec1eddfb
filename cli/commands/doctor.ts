/** `commitcast doctor`: looks at everything between a commit and a screen, and says what to do about it. */

import { styleText } from "node:util"
import type { Command } from "commander"
import pg from "pg"
import { ConfigError, type Settings } from "../../relay/config.ts"
import { checkDerived, checkTables, checkWriters } from "../doctor/capture.ts"
import { type Check, type Finding, failure, type Patient, type Verdict } from "../doctor/finding.ts"
import { checkRelay, type RelayAddress } from "../doctor/relay.ts"
import { checkContent, checkLog, checkRights, checkSchema } from "../doctor/schema.ts"
import {
  checkBell,
  checkClock,
  checkQueue,
  checkSessions,
  checkTransactions,
  checkVersion,
} from "../doctor/server.ts"
import { readState } from "../embedded/state.ts"
import { connect, findDatabase, UnreachableError } from "../schema/database.ts"
import { addCommand, DATABASE, KEYS, print as printLine, readPositive } from "./arguments.ts"
import { settingsOf } from "./settings.ts"
import { findSecret, signToken } from "./token.ts"

export interface DoctorOptions {
  settings: Readonly<Settings>
  /** A transaction that is open for longer is named. */
  longSeconds: number
  /** None: whether one runs is not looked at. */
  relay: RelayAddress | undefined
  json: boolean
  /** Whether colours are seen. */
  coloured: boolean
  print(line: string): void
}

const SERVER: Record<string, Check> = {
  database: checkVersion,
  bell: checkBell,
  clock: checkClock,
  queue: checkQueue,
  sessions: checkSessions,
  transactions: checkTransactions,
}
/** Only where the schema is there, and of this version. */
const SCHEMA: Record<string, Check> = {
  rights: checkRights,
  content: checkContent,
  log: checkLog,
  tables: checkTables,
  writers: checkWriters,
  derived: checkDerived,
}

/** @returns whether nothing has failed; warnings are no failures. */
export async function doctor({
  settings,
  longSeconds,
  relay,
  json,
  coloured,
  print,
}: DoctorOptions): Promise<boolean> {
  const findings: Finding[] = []
  const tell = (found: Finding[]) => {
    findings.push(...found)
    if (!json) for (const finding of found) for (const line of linesOf(finding, coloured)) print(line)
  }
  await examineDatabase(settings, longSeconds, tell)
  if (relay !== undefined) tell(await checkRelay(relay))
  const count = (verdict: Verdict) => findings.filter((finding) => finding.verdict === verdict).length
  const [failures, warnings] = [count("failure"), count("warning")]
  if (json) print(JSON.stringify({ healthy: failures === 0, findings }, undefined, 2))
  else if (failures + warnings === 0) print("All is well.")
  else print(`${counted(failures, "failure")}, ${counted(warnings, "warning")}.`)
  return failures === 0
}

async function examineDatabase(
  settings: Readonly<Settings>,
  longSeconds: number,
  tell: (found: Finding[]) => void,
): Promise<void> {
  let patient: Patient
  try {
    const databaseUrl = await findDatabase(settings)
    const client = await connect(databaseUrl)
    const { RETENTION_HOURS: retentionHours, RETENTION_MB: retentionMb } = settings
    patient = { client, databaseUrl, retentionHours, retentionMb, longSeconds }
  } catch (error) {
    return tell([explain("database", error)])
  }
  const examine = async (of: string, check: Check) => check(patient).catch((error) => [explain(of, error)])
  try {
    for (const [of, check] of Object.entries(SERVER)) tell(await examine(of, check))
    const schema = await examine("schema", checkSchema)
    tell(schema)
    if (schema.some(({ verdict }) => verdict === "failure")) return
    for (const [of, check] of Object.entries(SCHEMA)) tell(await examine(of, check))
  } finally {
    await patient.client.end()
  }
}

/** What was said to be wrong, as a finding. @throws what nobody foresaw. */
function explain(of: string, error: unknown): Finding {
  if (error instanceof ConfigError) {
    const message = error.message.replace(/^DATABASE_URL: /, "")
    const [, text = message, remedy = ""] = /^(.+): (.+)$/s.exec(message) ?? []
    return remedy === "" ? { of, verdict: "failure", text } : failure(of, text, remedy)
  }
  if (error instanceof UnreachableError)
    return failure(of, error.message, error.remedy ?? "Start it, or set DATABASE_URL to where it is.")
  if (error instanceof pg.DatabaseError) return failure(of, error.message, "See the server's log.")
  throw error
}

const COLOURS = { ok: "green", warning: "yellow", failure: "red" } as const
const [VERDICT_WIDTH, OF_WIDTH] = [8, 14]

function linesOf({ verdict, of, text, remedy }: Finding, coloured: boolean): string[] {
  const word = verdict.padEnd(VERDICT_WIDTH)
  const line = `${coloured ? styleText(COLOURS[verdict], word) : word} ${of.padEnd(OF_WIDTH)} ${text}`
  return remedy === undefined ? [line] : [line, `${" ".repeat(VERDICT_WIDTH + OF_WIDTH + 2)}-> ${remedy}`]
}

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`

/** An admin's token, if there is a secret to sign one with. */
async function adminToken(settings: Readonly<Settings>): Promise<string | undefined> {
  try {
    return signToken(await findSecret(settings), settings, { user: "1", admin: true, expires: "5m" })
  } catch (error) {
    if (error instanceof ConfigError) return undefined
    throw error
  }
}

export function addDoctor(program: Command): void {
  addCommand(program, "doctor", "look at everything between a commit and a screen, and say what to do", [
    ...DATABASE,
    ...KEYS,
    "RETENTION_HOURS",
    "RETENTION_MB",
  ])
    .option("--url <url>", "a relay to look at too; default: the embedded one that runs")
    .option("--token <token>", "an admin's; default: one signed with the relay's secret")
    .option("--long <seconds>", "name transactions that are open for longer", readPositive, 600)
    .option("--json", "for programs: { healthy, findings }")
    .addHelpText("after", "\nExits with 0 if nothing has failed, with 1 otherwise; warnings are no failures.")
    .action(async (options) => {
      const settings = settingsOf(options)
      const url = options.url ?? (await readState(settings.COMMITCAST_DIR))?.relay_url
      const healthy = await doctor({
        settings,
        longSeconds: options.long,
        relay: url === undefined ? undefined : { url, token: options.token ?? (await adminToken(settings)) },
        json: options.json === true,
        coloured: process.stdout.isTTY === true,
        print: printLine,
      })
      if (!healthy) process.exitCode = 1
    })
}
