/** Readiness: the problems that keep clients from connecting or changes from reaching them, in words. */

import type { KeysReport } from "../access/keys.ts"
import type { DerivedReport } from "../derived/report.ts"
import type { SourceState } from "../feed/source.ts"
import type { LogLoss } from "../telemetry/log-output.ts"

/** The oldest proof of the listener with which the relay is ready. Milliseconds. */
const STALE_MS = 20_000
const LAG_BOUND_MS = 5_000

/** What keeps changes from arriving, in words; nothing if the relay is ready. */
export function problemsOf({ listener, feed, lagMs, canary }: SourceState): string[] {
  const found: string[] = []
  if (listener.kind === "down") found.push(`not listening: ${listener.error ?? "connecting"}`)
  else if (performance.now() - listener.provenAt > STALE_MS)
    found.push("the listener's last proof is too old")
  if (feed.kind === "down") found.push(`the changelog cannot be read: ${feed.error ?? "connecting"}`)
  else if (lagMs > LAG_BOUND_MS) found.push(`the feed is ${Math.round(lagMs / 1_000)} s behind`)
  else if (canary.waitingSince !== null && performance.now() - canary.waitingSince > LAG_BOUND_MS)
    found.push("the log does not show what the relay itself has written to it")
  else if (canary.failingSince !== null && performance.now() - canary.failingSince > LAG_BOUND_MS)
    found.push(...canaryProblems(canary))
  return found
}

/** Without a key nobody can connect and the relay is not ready. Keys that cannot be refreshed are only a problem. */
export const keyProblems = ({ known, error }: KeysReport): string[] =>
  known === 0
    ? [`there are no keys for tokens: ${error ?? "not fetched yet"}`]
    : error === null
      ? []
      : [`the keys for tokens cannot be fetched anew: ${error}`]

/** A problem at once; the relay is not ready once it lasts. */
const canaryProblems = ({ error }: SourceState["canary"]): string[] =>
  error === null ? [] : [`the relay cannot write to the log: ${error}`]

/** Other relays stand no better, so that clients gain nothing where this one is not ready. */
const upkeepProblems = ({ upkeep }: SourceState): string[] =>
  upkeep.map(({ text, since }) => `${text} (since ${since})`)

/** Derived values that stand still harm nothing else, so the relay stays ready. */
const derivedProblems = (derived: readonly DerivedReport[]): string[] =>
  derived.flatMap(({ type, channel, error }) =>
    error === null ? [] : [`${type} of ${channel} cannot be computed: ${error}`],
  )

/** Nobody is stopped by it, but whoever looks for a reason will not find it there. */
const logProblems = (lost: LogLoss | undefined): string[] =>
  !lost?.error ? [] : [`log lines cannot be written: ${lost.error}, ${lost.lines} lost since the start`]

/** What those rows changed is loaded again by whoever could have seen it, and all others arrive. */
const unreadableProblems = ({ unreadable }: SourceState): string[] =>
  unreadable.rows === 0
    ? []
    : [
        `rows of the log could not be read: ${unreadable.rows} since the start, the last one with seq ${unreadable.last_seq ?? "null"}`,
      ]

export interface Standings {
  source: SourceState
  keys: KeysReport
  derived: readonly DerivedReport[]
  logLoss: LogLoss | undefined
}

/** All that the report calls a problem, each once. */
export const reportProblems = ({ source, keys, derived, logLoss }: Standings): string[] => [
  ...new Set([
    ...problemsOf(source),
    ...canaryProblems(source.canary),
    ...upkeepProblems(source),
    ...unreadableProblems(source),
    ...keyProblems(keys),
    ...derivedProblems(derived),
    ...logProblems(logLoss),
  ]),
]
