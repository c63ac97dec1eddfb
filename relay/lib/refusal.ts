/** What a database, or the way to it, has refused: the reason in one line, with what to do, and nothing of any row. */

interface Refusal {
  readonly is: (code: string, message: string) => boolean
  readonly text: string
  readonly remedy: string
}

const REFUSALS: readonly Refusal[] = [
  {
    is: (code) => code === "53300",
    text: "every connection that the server gives out is taken",
    remedy: "raise max_connections, or end sessions that nobody uses (pg_stat_activity)",
  },
  {
    is: (code, message) => code === "28000" && message.includes("pg_hba.conf"),
    text: "the server's pg_hba.conf lets no such host, role and database in",
    remedy: "add a line for them to it, and select pg_reload_conf()",
  },
  {
    is: (code, message) => code === "28000" && message.includes("not permitted to log in"),
    text: "the role may not log in",
    remedy: "alter role ... login, or name another role",
  },
  {
    is: (code, message) => code === "53100" || /No space left on device/.test(message),
    text: "the server's disk is full",
    remedy: "free some of it; if that takes time, select relay.pause() lets writers go on",
  },
  {
    is: (code) => code === "57P03",
    text: "the server starts up, recovers or shuts down",
    remedy: "wait for it, and see its log if it takes long",
  },
  {
    is: (code) => ["42P01", "42883", "42703", "3F000"].includes(code),
    text: "a part of the schema relay is missing or is another one",
    remedy: "commitcast install makes it anew",
  },
  {
    is: (code) => code === "42501",
    text: "the relay's role lacks a right",
    remedy: "as the owner of the schema, select relay.admit_relay('the role')",
  },
]

export interface Explained {
  readonly text: string
  readonly remedy: string
}

/** The code of PostgreSQL or of the system; of several attempts, that of the first. */
export function codeOf(error: unknown): string | undefined {
  if (error instanceof AggregateError) return codeOf(error.errors[0])
  const code = error instanceof Error && "code" in error ? error.code : undefined
  return typeof code === "string" ? code : undefined
}

/** What is known of a refusal, or undefined where nothing but its own words is. */
export function explainRefusal(error: unknown): Explained | undefined {
  const code = codeOf(error) ?? ""
  const message = error instanceof Error ? error.message : ""
  return REFUSALS.find(({ is }) => is(code, message))
}

/** PostgreSQL quotes values in messages of class 22 (data exception), and JavaScript in those of what it cannot parse. */
const isQuoting = (error: unknown): boolean =>
  error instanceof SyntaxError || /^22...$/.test(codeOf(error) ?? "")

/** Why something failed, in one line, for logs and reports. */
export function reasonOf(error: unknown): string {
  const code = codeOf(error)
  if (isQuoting(error))
    return code === undefined
      ? "the database answered something else than what was asked for"
      : `PostgreSQL refused a value (${code})`
  const message = error instanceof Error ? error.message : String(error)
  const words = message === "" ? (code ?? "it failed") : message
  const known = explainRefusal(error)
  return known === undefined ? words : `${known.text} (${words}): ${known.remedy}`
}
