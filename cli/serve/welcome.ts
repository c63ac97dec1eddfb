/** What a person reads once the relay is ready. */

import { invocation } from "../invocation.ts"

export interface Welcome {
  url: string
  /** Of the embedded database only. */
  databaseUrl: string | undefined
  token: string | undefined
}

const INSERT = "insert into vote (election_id, committee_id, candidate_id, votes) values (1, 7, 2, 42)"

/** The lines, ready to print. */
export function welcome({ url, databaseUrl, token }: Welcome): string {
  const lines: Array<[string, string]> = [["Dashboard", token === undefined ? url : `${url}/#token=${token}`]]
  if (databaseUrl !== undefined) {
    lines.push(["psql", `psql "${databaseUrl}" -c "${INSERT}"`])
    lines.push(["or", invocation(`query "${INSERT}"`)])
  }
  if (token !== undefined)
    lines.push(["Token", `${token}  (admin, 12 hours; the dashboard's link carries it)`])
  return `\n  CommitCast is ready.\n\n${lines.map(([name, text]) => `  ${name.padEnd(10)} ${text}`).join("\n")}\n\n`
}
