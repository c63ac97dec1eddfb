#!/usr/bin/env node
/** The command line: one command a file; flags, environment and .env make the settings. */

import { Command, CommanderError, InvalidArgumentError, Option } from "commander"
import type { z } from "zod"
import { ConfigError, flagOf, Settings } from "../relay/config.ts"
import { demo } from "./commands/demo.ts"
import { doctor } from "./commands/doctor.ts"
import { query } from "./commands/query.ts"
import { settingsOf, shownSettings } from "./commands/settings.ts"
import { start } from "./commands/start.ts"
import { tail } from "./commands/tail.ts"
import { findSecret, signToken } from "./commands/token.ts"
import { ClusterError, EmbeddedError } from "./embedded/errors.ts"
import { readState } from "./embedded/state.ts"
import { findDatabase, UnreachableError } from "./schema/database.ts"
import { install, track, uninstall, untrack } from "./schema/install.ts"
import { applySql, readMigrations } from "./schema/migrations.ts"
import { packageVersion } from "./version.ts"

type SettingName = keyof Settings

const DATABASE: SettingName[] = ["DATABASE_URL", "COMMITCAST_DIR"]
const KEYS: SettingName[] = ["JWT_SECRET", "JWT_PUBLIC_KEY", "JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE"]

const DEMO_HELP = `
Clerks enter, correct, verify and withdraw, lists come with each hour by COPY, some committees are imported in bulk under
relay.bulk_load. At the end the votes that were counted are held against those in the table, and the table against the results
that the relay tells; where they differ it says so and exits with 1. DATABASE_URL is not used.

Of a file, office and district make an election, the precinct is the committee, party is not kept. Rows whose office, candidate or
precinct is a total, undervotes, overvotes, blanks, ballots cast or registered voters are skipped, by the whole name.`

const print = (line: string) => process.stdout.write(`${line}\n`)
const note = (line: string) => process.stderr.write(`${line}\n`)
const readPositive = (text: string) => {
  const value = Number(text)
  if (!(value > 0)) throw new InvalidArgumentError("It must be a number above 0.")
  return value
}
const readObject = (text: string) => {
  try {
    return JSON.parse(text)
  } catch {
    throw new InvalidArgumentError('It must be JSON, such as {"committee_id":7}.')
  }
}
const splitList = (text: string) => text.split(",").map((item) => item.trim())

function command(name: string, summary: string, settings: SettingName[]): Command {
  const made = program.command(name).description(summary)
  for (const setting of settings) {
    const schema: z.ZodType = Settings.shape[setting]
    made.addOption(new Option(`${flagOf(setting)} <value>`, `${schema.description} [${setting}]`))
  }
  return made
}

/** An admin's token, if there is a secret to sign one with. */
async function adminToken(settings: Readonly<Settings>): Promise<string | undefined> {
  try {
    return signToken(await findSecret(settings), settings, { user: "1", admin: true, expires: "5m" })
  } catch (error) {
    if (error instanceof ConfigError) return undefined
    throw error
  }
}

// Whoever reads has seen enough, as `head` has.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error
  process.exit()
})

const program = new Command("commitcast")
  .description("Relays committed PostgreSQL changes to WebSocket clients.")
  .version(packageVersion())
  .showHelpAfterError("(--help shows what there is)")
  .exitOverride()

command(
  "start",
  "run the relay; without DATABASE_URL with a PostgreSQL of its own",
  Object.keys(Settings.shape) as SettingName[],
).action((options) => start(settingsOf(options)))

command(
  "demo",
  "play an election night into the embedded PostgreSQL, with a relay if none runs yet, and check its totals",
  (Object.keys(Settings.shape) as SettingName[]).filter((name) => name !== "DATABASE_URL"),
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
  .addHelpText("after", DEMO_HELP)
  .action((options) => demo(settingsOf(options), options, note))

command(
  "install",
  "put the relay's schema into the database, and the default tables under capture",
  DATABASE,
).action(async (options) => {
  const done = await install(await findDatabase(settingsOf(options)))
  const tables = done.tracked.length > 0 ? `; captured: ${done.tracked.join(", ")}` : ""
  print(
    done.state === "present"
      ? `nothing to do: version ${done.version} is installed`
      : `${done.state} version ${done.version}${tables}`,
  )
  done.warnings.forEach(note)
})

command("uninstall", "remove the relay's schema and all its triggers from the database", DATABASE).action(
  async (options) => {
    print(
      (await uninstall(await findDatabase(settingsOf(options))))
        ? "removed"
        : "nothing to do: it is not installed",
    )
  },
)

command("track", "capture a table's changes; again after ALTER TABLE", DATABASE)
  .argument("<table>", "its name, with a schema if it is not on the search path")
  .option("--type <type>", "the message type; default: the table's name and _update")
  .option("--channels <json>", 'channels from columns, such as {"committee":"committee_id"}')
  .option("--columns <list>", "capture these columns only", splitList)
  .option("--exclude <list>", "never capture these columns", splitList)
  .option("--key <list>", "what identifies a row; default: the primary key", splitList)
  .option("--restricted <json>", 'columns that only certain roles may see, such as {"admin":["voter_name"]}')
  .option(
    "--level <level>",
    "statement: the INSERT of many rows captured more cheaply; see the README's limits",
  )
  .action(async (table: string, options) => {
    const { type, channels, columns, exclude, key, restricted, level } = options
    const warnings = await track(await findDatabase(settingsOf(options)), table, {
      type,
      channels,
      columns,
      exclude,
      key,
      restricted,
      level,
    })
    print(`captured: ${table}`)
    warnings.forEach(note)
  })

command("untrack", "end the capture of a table", DATABASE)
  .argument("<table>")
  .action(async (table: string, options) => {
    print(
      (await untrack(await findDatabase(settingsOf(options)), table))
        ? `not captured any more: ${table}`
        : `nothing to do: ${table} was not captured`,
    )
  })

command("doctor", "look at everything between a commit and a screen, and say what to do", [
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
      print,
    })
    if (!healthy) process.exitCode = 1
  })

command(
  "config",
  "check the settings and print them; secrets are not shown",
  Object.keys(Settings.shape) as SettingName[],
)
  .option("--json", "for programs")
  .action((options) => {
    const shown = shownSettings(settingsOf(options))
    if (options.json) print(JSON.stringify(shown, undefined, 2))
    else for (const [name, value] of Object.entries(shown)) print(`${name}=${value}`)
  })

command("sql", "print the SQL that install would run, for a DBA", [])
  .option("--from <version>", "only what an installation of this version lacks", readPositive, 0)
  .action(async ({ from }) => {
    const wanted = (await readMigrations()).filter(({ version }) => version > from)
    print(`begin;\n${wanted.map(applySql).join("\n")}\ncommit;`)
  })

command("query", "run SQL in the relay's database, for people without psql", DATABASE)
  .argument("<sql>")
  .action(async (sql: string, options) => query(await findDatabase(settingsOf(options)), sql, print))

command("token", "print a token signed with the relay's secret", [...DATABASE, ...KEYS])
  .requiredOption("--user <id>", "whose it is")
  .option("--admin", "the role admin, which may read the health report")
  .option("--roles <list>", "roles that may see restricted columns", splitList)
  .option("--committees <list>", "narrow it to these committees", splitList)
  .option("--elections <list>", "narrow it to these elections", splitList)
  .option("--channels <list>", "narrow it to these channels", splitList)
  .option("--expires <duration>", "a number of seconds, or such as 15m, 1h, 60d", "1h")
  .action(async (options) => {
    const settings = settingsOf(options)
    print(signToken(await findSecret(settings), settings, options))
  })

command("tail", "print the changes as they come: readable on a terminal, JSON elsewhere", [
  ...DATABASE,
  ...KEYS,
  "WS_PATH",
])
  .option("--url <url>", "the relay; default: the embedded one that runs, else http://127.0.0.1:8080")
  .option("--token <token>", "default: one for user 1, signed with the relay's secret")
  .option("--channels <list>", "default: election_updates", splitList)
  .option("--where <json>", 'rows for which this holds, such as {"votes":{"gte":100}}', readObject)
  .option("--types <list>", "messages of these types only, such as voting_update", splitList)
  .option("--actions <list>", "changes of these actions only, such as create,delete", splitList)
  .addOption(
    new Option("--format <format>", "text or json")
      .choices(["text", "json"])
      .default(process.stdout.isTTY ? "text" : "json"),
  )
  .action(async (options) => {
    const settings = settingsOf(options)
    const stopped = new AbortController()
    process.once("SIGINT", () => stopped.abort())
    process.once("SIGTERM", () => stopped.abort())
    await tail({
      url: options.url ?? (await readState(settings.COMMITCAST_DIR))?.relay_url ?? "http://127.0.0.1:8080",
      path: settings.WS_PATH,
      token:
        options.token ??
        signToken(await findSecret(settings), settings, { user: "1", admin: true, expires: "12h" }),
      channels: options.channels ?? [],
      filter: { where: options.where, types: options.types, actions: options.actions },
      format: options.format,
      print,
      note,
      signal: stopped.signal,
    })
  })

/** A user's mistake is one line and exit code 2; anything else one line and 1. */
function fail(error: unknown): void {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2
    return
  }
  const mistake =
    error instanceof ConfigError ||
    error instanceof EmbeddedError ||
    error instanceof ClusterError ||
    error instanceof UnreachableError
  note(`commitcast: ${(error as Error).message}`)
  if (!mistake && process.env.LOG_LEVEL === "debug") note((error as Error).stack ?? "")
  process.exitCode = mistake ? 2 : 1
}

await program.parseAsync().catch(fail)
