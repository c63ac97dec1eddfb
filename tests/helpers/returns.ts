/** Returns of an election that nobody held, and what they come to. */

import { Returns } from "../../cli/demo/returns.ts"

/** So many that of everything that clerks do by chance something happens. */
export function manyReturns(): Returns {
  const returns = new Returns()
  for (let committee = 0; committee < 60; committee++)
    for (let office = 0; office < 16; office++)
      for (const candidate of ["Ann", "Bob", "Çelik"])
        returns.add(`Office ${office}`, candidate, `Precinct ${committee}`, 10 + ((committee * office) % 90))
  return returns
}

/** What each candidate has, by election and name. */
export function totalsOf({ committees, candidates, elections }: Returns): Record<string, number> {
  const sums = new Map<string, number>()
  for (const committee of committees)
    for (const [n, index] of committee.candidates.entries()) {
      const { election, name } = candidates[index] as (typeof candidates)[number]
      const of = `${elections[election]}: ${name}`
      sums.set(of, (sums.get(of) ?? 0) + (committee.votes[n] as number))
    }
  return Object.fromEntries([...sums].sort(([a], [b]) => (a < b ? -1 : 1)))
}
