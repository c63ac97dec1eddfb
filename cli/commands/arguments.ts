/** What commands have in common: settings as options, the values of options, and where they write. */

import { type Command, InvalidArgumentError, Option } from "commander"
import type { z } from "zod"
import { flagOf, Settings } from "../../relay/config.ts"

type SettingName = keyof Settings

export const ALL_SETTINGS = Object.keys(Settings.shape) as SettingName[]
export const DATABASE: SettingName[] = ["DATABASE_URL", "COMMITCAST_DIR"]
export const KEYS: SettingName[] = ["JWT_SECRET", "JWT_PUBLIC_KEY", "JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE"]

/** Adds a command whose settings are options too: `DATABASE_URL` is `--database-url`. */
export function addCommand(
  program: Command,
  name: string,
  summary: string,
  settings: SettingName[],
): Command {
  const command = program.command(name).description(summary)
  for (const setting of settings) {
    const schema: z.ZodType = Settings.shape[setting]
    command.addOption(new Option(`${flagOf(setting)} <value>`, `${schema.description} [${setting}]`))
  }
  return command
}

/** A line of the result. */
export const print = (line: string): void => void process.stdout.write(`${line}\n`)
/** A line beside the result, which no program reads. */
export const note = (line: string): void => void process.stderr.write(`${line}\n`)

/** @throws InvalidArgumentError, as commander wants it, as do the other readers. */
export function readPositive(text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new InvalidArgumentError("It must be a number above 0.")
  return value
}

/** Reads JSON; what it must hold is checked where it is used. */
export function readObject(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new InvalidArgumentError('It must be JSON, such as {"committee_id":7}.')
  }
}

/** Splits a list at its commas. */
export const splitList = (text: string): string[] => text.split(",").map((item) => item.trim())
