/** The script of a night: what is entered when, and by whom. */

import type { Returns } from "./returns.ts"

/** At a part of the night: from 0, its beginning, to 1. `committee` is an index. */
export type Task = { at: number; committee: number } & (
  | { kind: "pledge" }
  | { kind: "arrival" }
  /** The committee's entries from one up to another. */
  | { kind: "sheet"; from: number; to: number }
)

export interface Script {
  returns: Returns
  /** The hours of the day that the night takes, such as from 8 to 26, two o'clock. */
  hours: { first: number; last: number }
  /** In order of time: what clerks enter one by one, what comes as a list with each hour, and what is imported in bulk. */
  clerks: Task[]
  lists: Task[]
  imports: Task[]
}

/** Of twelve committees two hand in lists and one is imported; clerks see to the others. */
const SHARES = 12

/** A night in which returns are counted: an evening, and what comes after midnight. */
export const scriptOf = (returns: Returns): Script =>
  deal({ returns, hours: { first: 18, last: 26 } }, sheets(returns, 0.02, 0.97, 6))

/** The sheets on which committees tell, between two parts of the night, what they have counted: each begins at its own time. */
export function sheets({ committees }: Returns, opens: number, closes: number, longest: number): Task[] {
  const most = committees.reduce((most, { votes }) => Math.max(most, votes.length), 1)
  return committees.flatMap(({ votes }, committee) => {
    const begins = opens + Math.random() ** 1.4 * 0.65 * (closes - opens)
    const takes = (0.3 + (0.7 * votes.length) / most) * (0.8 + 0.2 * Math.random())
    const count = Math.ceil(votes.length / longest)
    return Array.from({ length: count }, (_, n): Task => {
      const at = begins + ((n + Math.random()) / count) * takes * (closes - begins)
      return {
        kind: "sheet",
        at,
        committee,
        from: n * longest,
        to: Math.min((n + 1) * longest, votes.length),
      }
    })
  })
}

/**
 * Deals the tasks out, in order of time: sheets and pledges by committee.
 * @param seen the share of the arrivals that clerks enter as they see them; the others come on lists.
 */
export function deal(night: Pick<Script, "returns" | "hours">, tasks: Task[], seen = 1): Script {
  const script: Script = { ...night, clerks: [], lists: [], imports: [] }
  for (const task of tasks.sort((a, b) => a.at - b.at)) {
    const share = task.committee % SHARES
    if (task.kind === "arrival") (Math.random() < seen ? script.clerks : script.lists).push(task)
    else if (share === SHARES - 1) script.imports.push(task)
    else if (share % 5 === 3) script.lists.push(task)
    else script.clerks.push(task)
  }
  return script
}
