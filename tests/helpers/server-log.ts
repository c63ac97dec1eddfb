/** The log of a server of the test's own, entry by entry. */

import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import type { OwnCluster, Settings } from "./cluster.ts"
import { until } from "./wait.ts"

/** What makes a server log so, PostgreSQL 15 or newer. */
export const LOGGED: Settings = {
  logging_collector: "on",
  log_destination: "jsonlog",
  log_directory: "log",
  log_rotation_age: 0,
  log_rotation_size: 0,
  log_statement: "all",
  log_min_error_statement: "log",
}

const LogEntry = z.object({
  session_id: z.string(),
  application_name: z.string().optional(),
  user: z.string().optional(),
  dbname: z.string().optional(),
  error_severity: z.string(),
  message: z.string(),
  context: z.string().optional(),
  statement: z.string().optional(),
})
export type LogEntry = z.infer<typeof LogEntry>

/** Everything logged so far. @param marker a statement that was run last: what came before it is in the log with it. */
export async function readServerLog({ dataDir }: OwnCluster, marker: string): Promise<LogEntry[]> {
  const folder = join(dataDir, "log")
  let entries: LogEntry[] = []
  await until("the log of the server", async () => {
    const names = (await readdir(folder)).filter((name) => name.endsWith(".json")).sort()
    const texts = await Promise.all(names.map((name) => readFile(join(folder, name), "utf8")))
    const lines = texts.flatMap((text) => text.split("\n").slice(0, -1))
    entries = lines.map((line) => LogEntry.parse(JSON.parse(line)))
    return entries.some(({ message }) => message.includes(marker))
  })
  return entries
}

/** The text of a statement that was logged, or undefined for other entries. */
const statementOf = ({ message }: LogEntry): string | undefined =>
  /^(?:statement|execute [^:]+): (.*)$/s.exec(message)?.[1]

/** What each session with such a name has sent, in order, by its id. */
export function statementsBySession(entries: readonly LogEntry[], name: RegExp): Map<string, string[]> {
  const sessions = new Map<string, string[]>()
  for (const entry of entries) {
    const text = statementOf(entry)
    if (text === undefined || !name.test(entry.application_name ?? "")) continue
    sessions.set(entry.session_id, [...(sessions.get(entry.session_id) ?? []), text])
  }
  return sessions
}
