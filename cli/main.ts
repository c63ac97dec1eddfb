#!/usr/bin/env node
/** The command line: one command a file; flags, environment and .env make the settings. */

import { Command, CommanderError } from "commander"
import { ConfigError } from "../relay/config.ts"
import { note } from "./commands/arguments.ts"
import { addConfig } from "./commands/config.ts"
import { addDemo } from "./commands/demo.ts"
import { addDoctor } from "./commands/doctor.ts"
import { addInstall, addUninstall } from "./commands/install.ts"
import { addQuery } from "./commands/query.ts"
import { addSql } from "./commands/sql.ts"
import { addStart } from "./commands/start.ts"
import { addTail } from "./commands/tail.ts"
import { addToken } from "./commands/token.ts"
import { addTrack, addUntrack } from "./commands/track.ts"
import { ClusterError, EmbeddedError, isDiskFull } from "./embedded/errors.ts"
import { UnreachableError } from "./schema/database.ts"
import { packageVersion } from "./version.ts"

/** What these print is beside what they are there for. */
const SERVE = ["start", "demo"]

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (SERVE.includes(process.argv[2] ?? "")) return
  // Whoever reads has seen enough, as `head` has.
  if (error.code === "EPIPE") process.exit()
  note(`commitcast: the result cannot be written: ${error.code}`)
  process.exit(1)
})
process.stderr.on("error", () => {})

const program = new Command("commitcast")
  .description("Relays committed PostgreSQL changes to WebSocket clients.")
  .version(packageVersion())
  .showHelpAfterError("(--help shows what there is)")
  .exitOverride()

// In the order in which --help lists them.
for (const add of [
  addStart,
  addDemo,
  addInstall,
  addUninstall,
  addTrack,
  addUntrack,
  addDoctor,
  addConfig,
  addSql,
  addQuery,
  addToken,
  addTail,
])
  add(program)

/** A user's mistake is one line and exit code 2; anything else one line and 1. */
function fail(error: unknown): void {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2
    return
  }
  const full = isDiskFull(error)
  const mistake =
    !full &&
    (error instanceof ConfigError ||
      error instanceof EmbeddedError ||
      error instanceof ClusterError ||
      (error instanceof UnreachableError && error.remedy === undefined))
  note(`commitcast: ${(error as Error).message}`)
  if (full) note("The disk is full: free some of it, and start again.")
  else if (error instanceof UnreachableError && error.remedy !== undefined) note(`-> ${error.remedy}`)
  if (!mistake && process.env.LOG_LEVEL === "debug") note((error as Error).stack ?? "")
  process.exitCode = mistake ? 2 : 1
}

await program.parseAsync().catch(fail)
