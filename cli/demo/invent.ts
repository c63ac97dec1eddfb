/** Invents an election: pledges, a day at the polls, and an evening of counting. */

import { Returns } from "./returns.ts"
import { deal, type Script, sheets, type Task } from "./script.ts"

const ELECTION = "Board election"
const COMMITTEES = 12
/** Each with the share of the votes that is expected, and how much it differs from one committee to the next. */
const CANDIDATES = [
  { name: "Amal Haddad", share: 0.34, spread: 0.5 },
  { name: "Jonas Berg", share: 0.31, spread: 0.7 },
  { name: "Mei Tanaka", share: 0.21, spread: 0.4 },
  { name: "Rosa Alvarez", share: 0.14, spread: 0.3 },
]
const HOURS = { first: 8, last: 26 }
/** The parts of the night at which the polls close, and at which all is counted. */
const CLOSED = 10 / 18
const COUNTED = 0.97
/** When people come: a peak in the morning, a small one at noon, the largest after work. Hours after the polls open. */
const PEAKS = [
  { share: 0.3, hour: 1.4, width: 0.7 },
  { share: 0.18, hour: 4.4, width: 0.5 },
  { share: 0.37, hour: 8.4, width: 0.8 },
]
const ANY_TIME = 0.15
const OPEN_HOURS = 10

/** How many changes follow from a task, about: half of what is on a sheet is verified, some of those who come had pledged. */
const CHANGES_OF = { sheet: 1.6 * CANDIDATES.length, arrival: 1.4, pledge: 1 }

/**
 * A night of about so many changes, and of those who come in lists, as many as vote.
 * @param changes what clerks do.
 */
export function inventNight(changes: number): Script {
  const seen = (0.35 * changes) / CHANGES_OF.arrival
  const boxes = Math.max(3, Math.round((0.5 * changes) / CHANGES_OF.sheet / COMMITTEES))
  const ballots = Array.from({ length: COMMITTEES }, () => {
    const electors = Math.max(250, seen / COMMITTEES) * (1 + 3 * Math.random() ** 1.5)
    return Math.round(electors * (0.55 + 0.3 * Math.random()))
  })
  const returns = new Returns()
  for (const [n, those] of ballots.entries()) count(returns, `Committee ${n + 1}`, those, boxes)
  const pledges = Array.from({ length: (0.15 * changes) / CHANGES_OF.pledge }, (): Task => {
    return { kind: "pledge", at: takenAt(), committee: choose(ballots) }
  })
  const arrivals = ballots.flatMap((those, committee) =>
    Array.from({ length: those }, (): Task => ({ kind: "arrival", at: comesAt(), committee })),
  )
  const counting = sheets(returns, CLOSED, COUNTED, CANDIDATES.length)
  return deal({ returns, hours: HOURS }, [...pledges, ...arrivals, ...counting], seen / arrivals.length)
}

/** The ballots of a committee, box by box. */
function count(returns: Returns, committee: string, ballots: number, boxes: number): void {
  const strengths = CANDIDATES.map(({ share, spread }) => share * (1 + spread * (2 * Math.random() - 1)))
  const sum = strengths.reduce((a, b) => a + b)
  for (let box = 0; box < boxes; box++) {
    const those = (ballots / boxes) * (0.6 + 0.8 * Math.random())
    for (const [n, { name }] of CANDIDATES.entries())
      returns.add(ELECTION, name, committee, Math.round((those * (strengths[n] as number)) / sum))
  }
}

/** Pledges are taken in the weeks before, so to say: most of them at the beginning of the night. */
const takenAt = (): number => CLOSED * 0.8 * Math.random() ** 2

function comesAt(): number {
  const peak = PEAKS[choose([...PEAKS.map(({ share }) => share), ANY_TIME])]
  const hour = peak === undefined ? Math.random() * OPEN_HOURS : peak.hour + peak.width * bell()
  return hour < 0 || hour >= OPEN_HOURS ? comesAt() : (hour / OPEN_HOURS) * CLOSED
}

/** About normally distributed, of deviation 1. */
const bell = (): number => (Math.random() + Math.random() + Math.random() + Math.random() - 2) * Math.sqrt(3)

/** An index, by weight. */
function choose(weights: number[]): number {
  let left = Math.random() * weights.reduce((a, b) => a + b)
  for (const [index, weight] of weights.entries()) {
    left -= weight
    if (left < 0) return index
  }
  return 0
}
